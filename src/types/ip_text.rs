//! An IP address as text, without the heap and without the formatting machinery: every request writes its client's several
//! times.

use std::io::Write;
use std::net::IpAddr;

/// The text of an IP address, as [`IpAddr`] displays it.
#[derive(Clone, Copy, Debug)]
pub struct IpText {
    bytes: [u8; LONGEST],
    len: u8,
}

/// `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255` is the longest form there is.
const LONGEST: usize = 45;

impl IpText {
    /// The text of this address.
    pub fn new(ip: IpAddr) -> Self {
        let mut text = Self { bytes: [0; LONGEST], len: 0 };
        match ip {
            IpAddr::V4(ip) => {
                for (place, octet) in ip.octets().into_iter().enumerate() {
                    if place > 0 {
                        text.push(b'.');
                    }
                    if octet >= 100 {
                        text.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        text.push(b'0' + octet / 10 % 10);
                    }
                    text.push(b'0' + octet % 10);
                }
            }
            IpAddr::V6(ip) => {
                let mut rest = &mut text.bytes[..];
                // It fits: see `LONGEST`.
                let _ = write!(rest, "{ip}");
                text.len = (LONGEST - rest.len()) as u8;
            }
        }
        text
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    /// The text; ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_the_address_displays() {
        for text in [
            "0.0.0.0",
            "1.20.103.255",
            "255.255.255.255",
            "10.9.99.100",
            "::",
            "::1",
            "2001:db8::7:1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:255.255.255.255",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(std::str::from_utf8(IpText::new(ip).as_bytes()).unwrap(), ip.to_string());
        }
    }
}
