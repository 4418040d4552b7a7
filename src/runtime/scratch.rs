//! Room of a thread that reads go to, at a place from which they are copied fast.

use std::ops::{Deref, DerefMut};

/// Bytes of a memory page, as processors compare addresses.
const PAGE: usize = 4096;
/// From here on glibc copies in one instruction, `rep movsb` (`glibc.cpu.x86_rep_movsb_threshold`).
const LONG: usize = 2 * 1024;
/// How far behind its source, by their places in their pages, a destination may not begin.
const NEAR: usize = 16;

/// Bytes that begin in the middle of a page.
///
/// On AMD's Zen 3 and 4 one instruction that copies much takes twenty times as long where the destination's place in its page is 1
/// to 15 bytes behind the source's (glibc's bug 30994; seen here: 5.2 µs for 16 KiB, otherwise 0.27). A record of TLS begins
/// with a head of 5 bytes and lies where allocators put what is large, at the start of a page; so do buffers.
#[derive(Debug)]
pub struct Scratch {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// So many bytes.
    pub fn new(len: usize) -> Self {
        let memory: Box<[u8]> = vec![0; len + PAGE].into();
        let start = (PAGE + PAGE / 2 - place(&memory)) % PAGE;
        Self { memory, start, len }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// How much of `bytes` is to be copied by itself before the rest, so that the rest is copied fast to `place` in a page: see
/// [`Scratch`]. Mostly all of them.
pub fn fast_piece(bytes: &[u8], to: usize) -> &[u8] {
    if bytes.len() >= 2 * LONG && is_near(to, place(bytes)) { &bytes[..LONG] } else { bytes }
}

/// Appends fast: see [`Scratch`].
pub fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len());
    if is_near(place(out) + out.len(), place(bytes)) {
        bytes.chunks(LONG).for_each(|piece| out.extend_from_slice(piece));
    } else {
        out.extend_from_slice(bytes);
    }
}

fn is_near(to: usize, from: usize) -> bool {
    (1..NEAR).contains(&((PAGE + to - from) % PAGE))
}

/// Where in its page it begins.
fn place(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr() % PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_in_the_middle_of_a_page_and_is_as_long_as_wanted() {
        for len in [1, PAGE, 256 * 1024] {
            let mut scratch = Scratch::new(len);
            assert_eq!((scratch.len(), place(&scratch)), (len, PAGE / 2));
            scratch.fill(7);
        }
    }

    #[test]
    fn what_is_copied_slowly_is_copied_in_two_pieces() {
        let scratch = Scratch::new(4 * PAGE);
        let page = &scratch[PAGE / 2..];
        assert_eq!(fast_piece(page, 5).len(), LONG);
        assert_eq!(fast_piece(&page[LONG..], 5).len(), page.len() - LONG, "then all of it is");
        assert_eq!(fast_piece(&page[5..], 5).len(), page.len() - 5, "both begin at the same place");
        assert_eq!(fast_piece(&page[6..], 5).len(), page.len() - 6);
        assert_eq!(
            fast_piece(&page[PAGE - 10..], 5).len(),
            LONG,
            "the one at a page's end, the other at the start of one"
        );
        assert_eq!(fast_piece(&page[PAGE - 11..], 5).len(), page.len() - (PAGE - 11));
        assert_eq!(fast_piece(&page[..2 * LONG - 1], 5).len(), 2 * LONG - 1, "too little to care");
        assert_eq!(fast_piece(&page[..0], 5).len(), 0);
    }

    #[test]
    fn what_is_appended_is_all_there() {
        let mut scratch = Scratch::new(4 * PAGE);
        for (n, byte) in scratch.iter_mut().enumerate() {
            *byte = (n / 7) as u8;
        }
        for behind in 0..=NEAR {
            let mut out = Vec::with_capacity(4 * PAGE);
            out.extend_from_slice(&[1; 30]);
            // So that the place it goes to is so far behind its own.
            let from = (2 * PAGE + PAGE / 2 + place(&out) + out.len() - behind) % PAGE;
            let bytes = &scratch[from..][..3 * PAGE];
            assert_eq!((place(&out) + out.len() + PAGE - place(bytes)) % PAGE, behind);
            append(&mut out, bytes);
            assert!(out[..30].iter().all(|b| *b == 1) && out[30..] == *bytes);
        }
    }
}
