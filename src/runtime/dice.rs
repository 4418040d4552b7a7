//! The only place that throws dice. Domain code takes random bytes as an argument.

use std::cell::Cell;

use ring::rand::{SecureRandom, SystemRandom};

/// Bytes nobody can guess, from the operating system.
///
/// # Panics
/// When the system has no randomness at all, because then nothing that needs it can be safe.
pub fn secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("a process cannot go on safely because the system gives no randomness");
    bytes
}

/// A random UUID (RFC 9562 §5.4) as URLs have it.
pub fn guid() -> String {
    let mut bytes = secret::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let n = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &n[..8], &n[8..12], &n[12..16], &n[16..20], &n[20..])
}

/// A number that does not come twice in practice, cheap enough for every request. Guessable: not for secrets.
pub fn unique() -> u128 {
    thread_local! {
        static STATE: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }
    STATE.with(|state| {
        let (seed, n) = state.get().unwrap_or_else(|| (u64::from_le_bytes(secret()), 0));
        state.set(Some((seed, n.wrapping_add(1))));
        u128::from(mix(seed)) << 64 | u128::from(mix(seed ^ mix(n)))
    })
}

/// SplitMix64's finaliser: a bijection that spreads neighbouring numbers over the whole range.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_says_that_it_is_random() {
        let guid = guid();
        assert_eq!((guid.len(), &guid[14..15]), (36, "4"), "{guid}");
        assert!("89ab".contains(&guid[19..20]), "{guid}");
    }

    #[test]
    fn numbers_do_not_repeat() {
        let numbers: std::collections::HashSet<_> = (0..10_000).map(|_| unique()).collect();
        assert_eq!(numbers.len(), 10_000);
    }
}
