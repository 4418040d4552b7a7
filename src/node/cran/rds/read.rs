//! Reads R's serialisation, versions 2 and 3, as far as another repository's `Meta/archive.rds` needs it. Pure.
//!
//! Vectors, lists and their attributes, big-endian, packed or not; what else R can write is refused.
//! R Internals §1.8. The bytes are somebody else's: nothing is reserved that they do not pay for, and nothing recurses deep.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// Bytes of an unpacked file; CRAN's index of its Archive has some 35 MB.
const UNPACKED_MAX: u64 = 128 << 20;
/// For unpacking, in KiB; `xz -9` needs as much.
const XZ_MEMORY_MAX: u32 = 66 << 10;
/// Vectors, lists and attributes; CRAN's index of its Archive has some 600,000.
const VALUES_MAX: usize = 4_000_000;
/// Lists in lists.
const DEPTH_MAX: usize = 16;

/// A value with its attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a> {
    /// It.
    pub value: Value<'a>,
    /// By name, in their order.
    pub attributes: Vec<(&'a [u8], Self)>,
}

/// A value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// `NULL`.
    #[default]
    Nil,
    /// Integers or logicals.
    Integers(Vec<i32>),
    /// Doubles.
    Reals(Vec<f64>),
    /// Texts in whatever encoding; `None`: `NA`.
    Strings(Vec<Option<&'a [u8]>>),
    /// A list.
    List(Vec<Object<'a>>),
    /// A name.
    Symbol(&'a [u8]),
    /// A pairlist without its tags.
    Pairs(Vec<Object<'a>>),
    /// Something that is understood well enough to be passed over.
    Other,
}

impl<'a> Object<'a> {
    fn attribute(&self, name: &str) -> Option<&Self> {
        self.attributes.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, object)| object)
    }

    /// The texts of an attribute such as `names`; `None`: it has none, or other ones.
    pub fn texts(&self, attribute: &str) -> Option<&[Option<&'a [u8]>]> {
        match &self.attribute(attribute)?.value {
            Value::Strings(all) => Some(all),
            _ => None,
        }
    }

    /// The element of a list by its name.
    pub fn element(&self, name: &str) -> Option<&Self> {
        let Value::List(all) = &self.value else { return None };
        let at = self.texts("names")?.iter().position(|known| *known == Some(name.as_bytes()))?;
        all.get(at)
    }

    /// Its numbers; `None`: it is no vector of numbers.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match &self.value {
            Value::Reals(all) => Some(all.clone()),
            Value::Integers(all) => Some(all.iter().map(|n| f64::from(*n)).collect()),
            _ => None,
        }
    }
}

/// Unpacks a file as R does, by what it begins with: gzip, bzip2, xz, or not packed at all.
///
/// # Errors
/// What is wrong with it.
pub fn unpack(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let bounded = |reader: &mut dyn Read, bytes: &mut Vec<u8>| reader.take(UNPACKED_MAX + 1).read_to_end(bytes);
    let unpacked = match file {
        [0x1f, 0x8b, ..] => bounded(&mut MultiGzDecoder::new(file), &mut bytes),
        [b'B', b'Z', b'h', ..] => bounded(&mut bzip2::read::MultiBzDecoder::new(file), &mut bytes),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            bounded(&mut lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_MAX), &mut bytes)
        }
        mut plain => bounded(&mut plain, &mut bytes),
    };
    unpacked.map_err(|e| format!("it cannot be unpacked: {e}"))?;
    if bytes.len() as u64 > UNPACKED_MAX {
        return Err("it unpacks to more than 128 MiB".into());
    }
    Ok(bytes)
}

/// Reads what [`unpack`] gave.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Object<'_>, String> {
    let rest = bytes.strip_prefix(b"X\n").ok_or("it is no binary serialisation of R (XDR)")?;
    let mut reader = Reader { rest, symbols: Vec::new(), values: 0 };
    let version = reader.int()?;
    // Who wrote it, and who can read it.
    reader.take(8)?;
    match version {
        2 => {}
        3 => {
            let length = reader.length()?;
            reader.take(length)?;
        }
        other => return Err(format!("it is of version {other}, and 2 and 3 are understood here")),
    }
    reader.object(0)
}

struct Reader<'a> {
    rest: &'a [u8],
    /// What later references refer to.
    symbols: Vec<&'a [u8]>,
    values: usize,
}

const CUT: &str = "it ends in the middle";

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32, String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*taken))
    }

    /// Of a vector; one of more than 2³¹ elements is not expected.
    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.int()?).map_err(|_| "it has a vector of no sensible length".to_owned())
    }

    /// As [`Self::length`], of elements that take at least so many bytes each.
    fn count(&mut self, bytes: usize) -> Result<usize, String> {
        let length = self.length()?;
        if length > self.rest.len() / bytes { Err(CUT.to_owned()) } else { Ok(length) }
    }

    fn object(&mut self, depth: usize) -> Result<Object<'a>, String> {
        let flags = self.int()?;
        self.object_of(flags, depth)
    }

    fn object_of(&mut self, flags: i32, depth: usize) -> Result<Object<'a>, String> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err("it is deeper or has more values than an index of files".into());
        }
        let value = match flags & 0xff {
            super::NIL => Value::Nil,
            super::SYMBOL => {
                let kind = self.int()?;
                let name = self.text(kind)?.unwrap_or_default();
                self.symbols.push(name);
                Value::Symbol(name)
            }
            super::REFERENCE => {
                let number = match flags >> 8 {
                    0 => self.int()?,
                    packed => packed,
                };
                let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                let name = at.and_then(|at| self.symbols.get(at)).ok_or("it refers to what is not there")?;
                // Its flags are its number.
                return Ok(Object { value: Value::Symbol(name), attributes: Vec::new() });
            }
            super::PAIRLIST => return self.pairs(flags, depth),
            super::LOGICAL | super::INTEGER => {
                let count = self.count(4)?;
                let bytes = self.take(count * 4)?;
                Value::Integers(bytes.as_chunks().0.iter().map(|n| i32::from_be_bytes(*n)).collect())
            }
            super::REAL => {
                let count = self.count(8)?;
                let bytes = self.take(count * 8)?;
                Value::Reals(bytes.as_chunks().0.iter().map(|n| f64::from_be_bytes(*n)).collect())
            }
            super::STRING => {
                let count = self.count(8)?;
                let texts = (0..count).map(|_| {
                    let kind = self.int()?;
                    self.text(kind)
                });
                Value::Strings(texts.collect::<Result<_, _>>()?)
            }
            super::LIST => {
                let count = self.count(4)?;
                if count > VALUES_MAX - self.values {
                    return Err("it has more values than an index of files".into());
                }
                Value::List((0..count).map(|_| self.object(depth + 1)).collect::<Result<_, _>>()?)
            }
            ALTERNATIVE => return self.alternative(depth),
            other => return Err(format!("it has a value of type {other}, which no index of files has")),
        };
        let attributes = if flags & super::HAS_ATTRIBUTES != 0 { self.attributes(depth)? } else { Vec::new() };
        Ok(Object { value, attributes })
    }

    /// A text, after its flags.
    fn text(&mut self, flags: i32) -> Result<Option<&'a [u8]>, String> {
        if flags & 0xff != CHARACTERS || flags & super::HAS_ATTRIBUTES != 0 {
            return Err("it has something else where a text should be".into());
        }
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| CUT)?;
                self.take(length).map(Some)
            }
        }
    }

    fn pairs(&mut self, flags: i32, depth: usize) -> Result<Object<'a>, String> {
        let pairs = self.tagged(flags, depth)?;
        let value = Value::Pairs(pairs.into_iter().map(|(_, object)| object).collect());
        Ok(Object { value, attributes: Vec::new() })
    }

    fn attributes(&mut self, depth: usize) -> Result<Vec<(&'a [u8], Object<'a>)>, String> {
        match self.int()? {
            flags if flags & 0xff == super::PAIRLIST => self.tagged(flags, depth),
            flags if flags & 0xff == super::NIL => Ok(Vec::new()),
            _ => Err("it has attributes that are no list".into()),
        }
    }

    /// A pairlist with its tags, after its first flags.
    fn tagged(&mut self, mut flags: i32, depth: usize) -> Result<Vec<(&'a [u8], Object<'a>)>, String> {
        let mut pairs = Vec::new();
        while flags & 0xff == super::PAIRLIST {
            if flags & super::HAS_ATTRIBUTES != 0 {
                self.object(depth + 1)?;
            }
            let mut tag: &[u8] = &[];
            if flags & super::HAS_TAG != 0
                && let Value::Symbol(name) = self.object(depth + 1)?.value
            {
                tag = name;
            }
            pairs.push((tag, self.object(depth + 1)?));
            flags = self.int()?;
        }
        // The end, or what a dotted pair ends in.
        self.object_of(flags, depth + 1)?;
        Ok(pairs)
    }

    /// A vector that R keeps in another form than its usual one (ALTREP): its class, its state, its attributes.
    fn alternative(&mut self, depth: usize) -> Result<Object<'a>, String> {
        let (class, state, attributes) = (self.object(depth + 1)?, self.object(depth + 1)?, self.attributes(depth)?);
        let name = match &class.value {
            Value::Pairs(pairs) => pairs.first().map(|first| &first.value),
            _ => None,
        };
        let is_wrapped = matches!(name, Some(Value::Symbol(name)) if name.starts_with(b"wrap_"));
        let value = match state.value {
            Value::Pairs(pairs) | Value::List(pairs) if is_wrapped => {
                pairs.into_iter().next().map_or(Value::Other, |first| first.value)
            }
            _ => Value::Other,
        };
        Ok(Object { value, attributes })
    }
}

const CHARACTERS: i32 = 9;
const ALTERNATIVE: i32 = 238;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    /// `list(alpha = …, beta = …, gammaz = …)` by R 4.2.2: data frames of 2, 1 and 3 files.
    const BY_R: [(&str, &str); 4] = [
        (
            "version 2, xz",
            "/Td6WFoAAAFpIt42AgAhARYAAAB0L+Wj4AhWAXddACwCfBn5n/gdO9yZ6v0ZuT6QPAw4xHlBt24yzyET6y39AFhS2wjgl3IO0XcC\
             N6ELDxto3nn3VKWgrlNfR/sVEqB8s6HQ1ssfbfw/jUNkesuVtgaPGy0oEANsDnJWvpG3YfAL+9na3qzdCe/3IMJekKiooMbnFX/z\
             79PDmCQ6pktrLg6wazb2I/hZbYy1f/Dc26JuCtCCxslXqlzV4qe27kogw7f1fQ6vwfwIVOJjocjc0iI0sx7+ppofKRBt44PPym9w\
             ZHuLoiMJwiJOXh1rv+em0CvoNLC6U9Zq3UzjrXmDUIrusiD6vBLm2UVlzUd4vuEgeIEJXTRXM1OtPardAC22NcCqWYNBJNwfvcFo\
             Q/exh6Z842qN+vqgkZwYCGI3XMNYMjSmAAwj5onzIMp3I4urBdh9A6WcyYCkb2VYtlfdG0hH1YhIgO61W4RQR3ile2nOIYxse2JJ\
             xVkzZufnVc/NoJqBa1AT0ArXRtsin8B5RjSYJFLoCgAAEmgIGgABjwPXEAAAUCq2zD4wDYsCAAAAAAFZWg==",
        ),
        (
            "version 3, bzip2",
            "QlpoOTFBWSZTWaF1+dEAAyJ/1v+7TUAAA/hAYSDOcL/n3pBAAAQAQAABAAABwAHx3GzCOYBMAJgABMAATAAEiIhI00PUA0aAAAZA\
             GgBFJGqeU2hM1DajT1AAAAAMgEUlR6h6mh6gaAaBoGntUZH6SAHpMef7gggurzmW1BWZm7BiZqTdEQlF5I02F4WUUgraNNUotaoT\
             QLxWCGkDTEDYhVVVMr9wNt2p/P9naJmEEzMkssFKMzGxh+VgBZZea8SF00DthZMCbImpEhNIqrrkVs0NSZMoQVuG5kIjXAD6M3y0\
             uPVYiqIjEWsVM4QitmhXS1ITAjFVBgFJQoBuCoQKAQxChTIGUKkr7KEBCcCqt4syyIzCBlWNjbTabTBK6FAu3pFiWqN9ts4JVO43\
             DMZ96G1ZwQwwydtClBCghahyIUELuXruEMboEMJhiD6xhBBBrUM5zukD7WodHS1ulej4wU9KEP4+49jIfNwOBW1kyTQ8zf9uJ42h\
             pH9TcP5zOZDC2us/t6ZFgdhCAam5qc7Y46OJ1RmDmBjOljYP85HCD8W5fUrZtdjehCGuhqUsGUZNDrMNza1TxjA4GYzGHevENAh5\
             AFSYIQ85Qf4u5IpwoSFC6/Oi",
        ),
        (
            "version 3, gzip",
            "H4sIAAAAAAAAA82UUU+DMBCAry3TbGZmicb4JwSdLz7ii4lPmqjJ9MVUQCQZYkoXkz35Y/wh+xX+HJUWjhXYMrcXISm967V33PXj\
             Rj0AYGBRCqyTidC5u704OgOge9oATM1q0242qHsP+nEjwEfZaKkB6+c6+cyHpWwELOgq596Yp2kmDIzF7cSTceIHmfidnddxzr8e\
             dmYugJ4/lF/lh/wURykevb66uRx5slC3tCrb6giK0mSZ56Oum44skSSyIq+0V0v9yuMAS93DjWk0DXBDlPqRQIO+gMIQyyguFc9U\
             uKGwSeSjGJZiZ6LiYvah0Fr1y7oiebfNr8OUDvj47YU7+v14bJ/Ykgs7nC62DtFavQcM0vO55Paz0OH1LZocE+S4WCMGu2TObcPr\
             AlQJgrEpWf/qAPo1HE0UyQL8SBM5igHbQBmrX9n+UyC5o14mUptAw+rNzxUzEyIGlUfDxOaNcB2oWL3b6Hm2OSOtdghFpUr4yJK1\
             gV5b1v+asP5xb3shxgQOQx7HfOrkU7M3NuzDFfbTNX+ESolYmaPqxVgW9YuVyeg46ugvAbyWCmAIAAA=",
        ),
        (
            "with vectors in other forms than usual",
            "H4sIAAAAAAACA81WUU/CMBC+rZsGDEqiMf4Jh+KLj/hi4pMmaoK+kMLKXMIY6UpIePLH+EP4Ff4MfwK4dm3pNgjCiyzpenff9W69\
             fj1oVwEAgWPbgNxUBPf15f7yFsA+FQAgPnOnn3TY6bDAgUo6VyYUjzqU4EEBcLo4IdJWE3aA43TMpY3LdusNxNMKQT01HScbc5nY\
             1h6ApI/1lQ3HzOv2BjhJUqFuGA/jHotin2TxkMh99/1+NGsBiPmTx+Vx0EIutdXSp8fnh3aPSfVAqGxfA5XKV9TNQA6NY5aTN+L5\
             Ug9xRFSpq8oxCadEOYSJH1IFiAOQQMTCSCs9U8GGgsahr8RAi+6Y51W7D6jQ8l9WofHEM79ObekcD0YfuCHenSvv2mOYesF0NdpU\
             aP4cVJKqjxn2+lSkF6eoLgk/TUtxW9osg7vWkrelqCuoaili7Mqsfw2gb79VkIut5MQnfUIp8TsJo+EwyGB7UWgidaOJrAoNEjeL\
             arDXWewRYd3i6Z91CcMN/jLZuQv/ULG3tujM5COC3CN4iZY9dRt+omLjEvNsd7rtdUCQldLEs9bY6tlv6ppWWm67f/TdXxKrDVwE\
             OIrwtJFN5TZbwpsb8JstL0KuREjvkbd1/e8kvWJ6MyIPX/oL6hTASwgJAAA=",
        ),
    ];

    #[test]
    fn what_r_writes_is_read_however_it_is_packed() {
        for (how, text) in BY_R {
            let bytes = unpack(&BASE64_STANDARD.decode(text).unwrap()).unwrap();
            let all = read(&bytes).unwrap_or_else(|e| panic!("{how}: {e}"));
            let names: Vec<_> = all.texts("names").unwrap().iter().map(|name| name.unwrap()).collect();
            assert_eq!(names, [&b"alpha"[..], b"beta", b"gammaz"], "{how}");
            let gamma = all.element("gammaz").unwrap();
            assert_eq!(gamma.texts("row.names").unwrap()[2], Some(&b"gammaz/gammaz_0.3.tar.gz"[..]), "{how}");
            assert_eq!(gamma.element("size").unwrap().numbers().unwrap(), [100.0, 200.0, 300.0], "{how}");
            assert_eq!(gamma.element("mtime").unwrap().numbers().unwrap()[0], 1_500_000_001.0, "{how}");
            assert_eq!(all.element("beta").unwrap().element("isdir").unwrap().numbers().unwrap(), [0.0], "{how}");
            assert!(all.element("delta").is_none() && gamma.element("mtime").unwrap().texts("class").is_some());
        }
    }

    #[test]
    fn what_is_cut_or_altered_is_an_error_or_another_value_and_never_the_end_of_us() {
        let bytes = unpack(&BASE64_STANDARD.decode(BY_R[3].1).unwrap()).unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xee, 0xff] {
                let mut altered = bytes.clone();
                altered[at] = value;
                let _ = read(&altered);
            }
        }
        for packed in BY_R {
            let packed = BASE64_STANDARD.decode(packed.1).unwrap();
            for end in 0..packed.len() {
                let _ = unpack(&packed[..end]).map(|bytes| read(&bytes).is_ok());
            }
        }
    }

    #[test]
    fn what_would_take_more_than_it_brings_is_refused() {
        let ints = |ints: &[i32]| -> Vec<u8> { ints.iter().flat_map(|n| n.to_be_bytes()).collect() };
        let of = |body: Vec<u8>| [b"X\n".to_vec(), ints(&[2, 0, 0]), body].concat();
        for (what, body) in [
            ("a vector longer than the file", ints(&[14, i32::MAX])),
            ("a long vector", ints(&[14, -1, 1, 0])),
            ("a list longer than the file", ints(&[19, i32::MAX])),
            ("lists in lists", ints(&[19, 1].repeat(1_000))),
            ("attributes of attributes", ints(&[13 | 0x200, 0, 0x402, 1, 0x0004_0009, 0].repeat(1_000))),
            ("a reference to nothing", ints(&[0x1ff])),
            ("a reference before the first", ints(&[255, i32::MIN])),
            ("a text of no length", ints(&[16, 1, 9, -7])),
            ("a function", ints(&[3, 254, 254, 254])),
            ("an environment", ints(&[4, 0, 254, 254, 254, 254])),
            ("a promise of R's own form", ints(&[238, 254, 254, 9])),
        ] {
            assert!(read(&of(body)).is_err(), "{what}");
        }
        let many = [ints(&[19, 5_000_000]), ints(&vec![254; 5_000_000])].concat();
        assert!(read(&of(many)).unwrap_err().contains("more values"));
        assert!(read(b"A\n2\n").is_err() && read(b"").is_err() && read(b"<html>").is_err());

        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        (0..=128).for_each(|_| std::io::Write::write_all(&mut bomb, &zeros).unwrap());
        assert!(unpack(&bomb.finish().unwrap()).unwrap_err().contains("more than 128 MiB"));
    }
}
