//! HTTP/1.1 read strictly, by its own code: what a message is here is one by RFC 9112 to the letter, and anything else is
//! none. Requests are read from what a client sends and from what an origin gets, answers from what a client gets.

/// Name in lower case, value without blanks around it.
pub(crate) type Field = (String, Vec<u8>);

/// A request as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    pub(crate) is_http10: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Vec<u8>,
    /// Its chunks have extensions, or trailers behind them.
    pub(crate) has_extras: bool,
    pub(crate) is_whole: bool,
}

/// An answer as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: Vec<u8>,
    pub(crate) is_http10: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Vec<u8>,
    /// Its chunks have extensions, or trailers behind them.
    pub(crate) has_extras: bool,
    pub(crate) end: BodyEnd,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// Not yet; at the end of everything: cut.
    #[default]
    Cut,
    /// Where it said.
    Whole,
    /// It has no end but the connection's.
    Open,
}

/// The values of all fields of a name, which is in lower case.
pub(crate) fn all<'a>(fields: &'a [Field], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| &value[..])
}

/// Why bytes are no message.
pub(crate) type Broken = &'static str;

/// Reads requests, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    buf: Vec<u8>,
    body: Option<Body>,
    /// Those whose head came; only the last may not be whole.
    pub(crate) all: Vec<Request>,
    /// Nothing behind this can be read.
    pub(crate) broken: Option<Broken>,
}

impl Requests {
    /// All that can be read in some bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut requests = Self::default();
        requests.feed(bytes);
        requests
    }

    /// More bytes came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        if self.broken.is_none() {
            self.broken = self.advance().err();
        }
    }

    /// What comes behind this one is nothing of it.
    pub(crate) fn end_behind(&mut self, at: usize) {
        self.all.truncate(at + 1);
        self.buf.clear();
        (self.body, self.broken) = (None, None);
    }

    /// Bytes that belong to no whole head yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buf
    }

    fn advance(&mut self) -> Result<(), Broken> {
        loop {
            if let (Some(body), Some(request)) = (&mut self.body, self.all.last_mut()) {
                let used = body.take(&self.buf, &mut request.body);
                request.has_extras = body.has_extras;
                self.buf.drain(..used?);
                if !body.is_done() {
                    return Ok(());
                }
                request.is_whole = true;
                self.body = None;
            }
            // RFC 9112 §2.2: a server should ignore at least one empty line before a request.
            while self.buf.starts_with(b"\r\n") {
                self.buf.drain(..2);
            }
            let Some((line, fields, len)) = head(&self.buf)? else { return Ok(()) };
            let (request, framing) = request(&line, fields)?;
            self.buf.drain(..len);
            self.all.push(request);
            self.body = Some(Body::new(framing));
        }
    }
}

/// Reads answers, one behind the other.
#[derive(Debug)]
pub(crate) struct Answers {
    buf: Vec<u8>,
    body: Option<Body>,
    /// Of each request to come: whether it is HEAD.
    to_head: Vec<bool>,
    finals: usize,
    pub(crate) all: Vec<Answer>,
    pub(crate) broken: Option<Broken>,
}

impl Answers {
    /// `to_head`: for each request in turn, whether its method is HEAD; those beyond are not.
    pub(crate) fn new(to_head: Vec<bool>) -> Self {
        Self { buf: Vec::new(), body: None, to_head, finals: 0, all: Vec::new(), broken: None }
    }

    /// More bytes came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        if self.broken.is_none() {
            self.broken = self.advance().err();
        }
    }

    /// What comes behind this one is nothing of it.
    pub(crate) fn end_behind(&mut self, at: usize) {
        self.all.truncate(at + 1);
        self.finals = self.all.iter().filter(|answer| answer.status >= 200).count();
        self.buf.clear();
        (self.body, self.broken) = (None, None);
    }

    /// Final answers that are whole.
    pub(crate) fn whole_finals(&self) -> usize {
        self.finals - usize::from(self.body.is_some())
    }

    /// Final answers, whole or not.
    pub(crate) fn finals(&self) -> usize {
        self.finals
    }

    /// Bytes that belong to no whole head.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.buf
    }

    /// The same, to be written anew.
    pub(crate) fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }

    fn advance(&mut self) -> Result<(), Broken> {
        loop {
            if let (Some(body), Some(answer)) = (&mut self.body, self.all.last_mut()) {
                let used = body.take(&self.buf, &mut answer.body);
                answer.has_extras = body.has_extras;
                self.buf.drain(..used?);
                if !body.is_done() {
                    return Ok(());
                }
                answer.end = BodyEnd::Whole;
                self.body = None;
            }
            let Some((line, fields, len)) = head(&self.buf)? else { return Ok(()) };
            let mut answer = answer(&line, fields)?;
            self.buf.drain(..len);
            if answer.status < 200 {
                answer.end = BodyEnd::Whole;
                self.all.push(answer);
                continue;
            }
            let to_head = self.to_head.get(self.finals).is_some_and(|is| *is);
            self.finals += 1;
            let framing = match answer_framing(&answer)? {
                _ if to_head || matches!(answer.status, 204 | 304) => Framing::Length(0),
                framing => framing,
            };
            if framing == Framing::Open {
                answer.end = BodyEnd::Open;
            }
            self.all.push(answer);
            self.body = Some(Body::new(framing));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Open,
}

/// Start line, fields, and bytes of both with the blank line.
type Head = (Vec<u8>, Vec<Field>, usize);

fn head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let Some(end) = crate::case::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut lines = Lines(&bytes[..end]);
    let line = lines.next().unwrap_or_default().to_vec();
    if line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err("CR, LF or NUL within the start line");
    }
    Ok(Some((line, lines.map(field).collect::<Result<_, _>>()?, end + 4)))
}

struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = match crate::case::find(self.0, b"\r\n") {
            Some(at) => (&self.0[..at], &self.0[at + 2..]),
            None => (self.0, &[][..]),
        };
        self.0 = rest;
        Some(line)
    }
}

fn field(line: &[u8]) -> Result<Field, Broken> {
    let colon = line.iter().position(|b| *b == b':').ok_or("a field line without colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err("a field name that is no token");
    }
    if value.iter().any(|b| matches!(b, 0..=8 | 10..=31 | 127)) {
        return Err("a control character in a field value");
    }
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value[start..end].to_vec()))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn request(line: &[u8], fields: Vec<Field>) -> Result<(Request, Framing), Broken> {
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a request line that is not three words");
    };
    let is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("a version that is neither 1.0 nor 1.1"),
    };
    if !is_token(method) {
        return Err("a method that is no token");
    }
    if target.is_empty() || target.iter().any(|b| b.is_ascii_control()) {
        return Err("a target that is none");
    }
    let hosts = all(&fields, "host").count();
    if hosts > 1 || hosts == 0 && !is_http10 {
        return Err("not exactly one Host");
    }
    let chunked = chunked(&fields)?;
    if chunked && is_http10 {
        return Err("chunks in HTTP/1.0");
    }
    let framing = match (chunked, length(&fields)?) {
        (true, Some(_)) => return Err("Transfer-Encoding and Content-Length"),
        (true, None) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or_default()),
    };
    let method = String::from_utf8_lossy(method).into_owned();
    let request = Request {
        method,
        target: target.to_vec(),
        is_http10,
        fields,
        body: Vec::new(),
        has_extras: false,
        is_whole: false,
    };
    Ok((request, framing))
}

fn answer(line: &[u8], fields: Vec<Field>) -> Result<Answer, Broken> {
    let is_http10 = match line.get(..9) {
        Some(b"HTTP/1.1 ") => false,
        Some(b"HTTP/1.0 ") => true,
        _ => return Err("a status line without a version"),
    };
    let digits = line.get(9..12).filter(|code| code.iter().all(u8::is_ascii_digit));
    let status = digits.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).filter(|code| *code >= 100);
    // RFC 9112 §4: the space behind the code is there even when the phrase is not.
    let reason = line.get(12..).and_then(|rest| rest.strip_prefix(b" "));
    let (Some(status), Some(reason)) = (status, reason) else { return Err("a status line without code and space") };
    if reason.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("a control character in a reason");
    }
    Ok(Answer { status, reason: reason.to_vec(), is_http10, fields, ..Answer::default() })
}

fn answer_framing(answer: &Answer) -> Result<Framing, Broken> {
    match (chunked(&answer.fields)?, length(&answer.fields)?) {
        (true, Some(_)) => Err("an answer with Transfer-Encoding and Content-Length"),
        (true, None) if answer.is_http10 => Err("an answer in chunks with HTTP/1.0"),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Open),
    }
}

fn chunked(fields: &[Field]) -> Result<bool, Broken> {
    let mut encodings = all(fields, "transfer-encoding");
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err("a Transfer-Encoding that is not `chunked`"),
    }
}

fn length(fields: &[Field]) -> Result<Option<u64>, Broken> {
    let mut lengths = all(fields, "content-length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(one), None) if !one.is_empty() && one.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(one).ok().and_then(|digits| digits.parse().ok());
            length.map(Some).ok_or("a Content-Length that does not fit")
        }
        _ => Err("a Content-Length that is not one number"),
    }
}

/// Bytes of a line with a chunk's size, its end with it, that the proxy takes.
const SIZE_LINE_MAX: usize = 256;
/// Bytes of all trailers.
const TRAILERS_MAX: usize = 16 * 1024;

/// Follows one body.
#[derive(Debug)]
struct Body {
    at: At,
    /// Of the line that is being read.
    line: Vec<u8>,
    /// Bytes of trailers.
    trailers: usize,
    has_extras: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Bytes left of a body with a length.
    Length(u64),
    Open,
    SizeLine,
    Chunk(u64),
    /// The empty line behind a chunk.
    ChunkEnd,
    TrailerLine,
    Done,
}

impl Body {
    fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Length(0) => At::Done,
            Framing::Length(n) => At::Length(n),
            Framing::Chunked => At::SizeLine,
            Framing::Open => At::Open,
        };
        Self { at, line: Vec::new(), trailers: 0, has_extras: false }
    }

    fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// How many of these bytes belong to it; its data goes to `out`.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::Done {
            match self.at {
                At::Open => {
                    out.extend_from_slice(&bytes[used..]);
                    used = bytes.len();
                }
                At::Length(left) | At::Chunk(left) => {
                    let n = left.min((bytes.len() - used) as u64);
                    out.extend_from_slice(&bytes[used..used + n as usize]);
                    used += n as usize;
                    self.at = match self.at {
                        At::Length(_) if n == left => At::Done,
                        At::Length(_) => At::Length(left - n),
                        _ if n == left => At::ChunkEnd,
                        _ => At::Chunk(left - n),
                    };
                }
                _ => {
                    self.line.push(bytes[used]);
                    used += 1;
                    self.trailers += usize::from(self.at == At::TrailerLine);
                    if self.trailers > TRAILERS_MAX {
                        return Err("trailers that are too long");
                    }
                    if self.line.ends_with(b"\r\n") {
                        self.line.truncate(self.line.len() - 2);
                        self.has_extras |= match self.at {
                            At::SizeLine => !self.line.iter().all(u8::is_ascii_hexdigit),
                            _ => self.at == At::TrailerLine && !self.line.is_empty(),
                        };
                        self.at = self.after_line()?;
                        self.line.clear();
                    } else if matches!(self.line[..], [.., b'\r', _] | [.., b'\n']) {
                        return Err("CR or LF alone in chunk syntax");
                    } else if self.at == At::SizeLine && self.line.len() > SIZE_LINE_MAX {
                        return Err("a chunk size with an extension that is too long");
                    }
                }
            }
        }
        Ok(used)
    }

    fn after_line(&self) -> Result<At, Broken> {
        match self.at {
            At::ChunkEnd if self.line.is_empty() => Ok(At::SizeLine),
            At::TrailerLine if self.line.is_empty() => Ok(At::Done),
            At::TrailerLine => field(&self.line).map(|_| At::TrailerLine),
            At::SizeLine => match chunk_size(&self.line)? {
                0 => Ok(At::TrailerLine),
                size => Ok(At::Chunk(size)),
            },
            _ => Err("a chunk that is longer than it said"),
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Broken> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // RFC 9112 §7.1.1: bad whitespace may come before the semicolon of an extension.
    let extension = line[digits..].trim_ascii_start();
    if !extension.is_empty() && !extension.starts_with(b";") || line.iter().any(|b| b.is_ascii_control() && *b != b'\t')
    {
        return Err("a chunk size that is none");
    }
    let size = std::str::from_utf8(&line[..digits]).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    size.ok_or("a chunk size that is none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_behind_the_other_however_they_come() {
        let text = b"\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nGET /b HTTP/1.0\r\n\r\nGET";
        let mut requests = Requests::default();
        text.iter().for_each(|byte| requests.feed(&[*byte]));
        let told: Vec<_> = requests.all.iter().map(|r| (&*r.method, &r.body[..], r.is_whole, r.has_extras)).collect();
        assert_eq!(told, [("POST", &b"ok"[..], true, false), ("GET", b"", true, false)]);
        assert_eq!((requests.rest(), requests.broken), (&b"GET"[..], None));
    }

    #[test]
    fn what_two_could_read_differently_is_broken() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n",
        ] {
            assert!(Requests::of(text.as_bytes()).broken.is_some(), "{text}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_noted_and_an_end_is_known() {
        let read = |text: &str| {
            let mut answers = Answers::new(vec![false]);
            answers.feed(text.as_bytes());
            let last = answers.all.pop().unwrap_or_default();
            (last.has_extras, last.end)
        };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(&format!("{head}1\r\na\r\n0\r\n\r\n")), (false, BodyEnd::Whole));
        assert_eq!(read(&format!("{head}1;b\r\na\r\n0\r\n\r\n")), (true, BodyEnd::Whole));
        assert_eq!(read(&format!("{head}0\r\nT: 1\r\n\r\n")), (true, BodyEnd::Whole));
        assert_eq!(read(&format!("{head}1\r\n")), (false, BodyEnd::Cut));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nabc"), (false, BodyEnd::Open));
    }
}
