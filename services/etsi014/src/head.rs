//! The head of an HTTP/1.1 request (RFC 9112), read strictly: what two parsers could frame differently is refused.

use std::ops::Range;

use super::reply::Problem;

/// Most header lines of a request.
const HEADER_LINES: usize = 64;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Bytes; 0 without a body.
    Length(usize),
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Head,
    Options,
    Other,
}

impl Method {
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// As spans call it; methods that nobody should use are not told apart.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other => "_OTHER",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    /// Where the target stands in the input.
    pub(super) target: Range<usize>,
    /// How much of the input the head takes, in bytes.
    pub(super) length: usize,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// Looks for the end of the head in `input`, of which `seen` bytes have been looked through before.
pub(super) fn end(input: &[u8], seen: usize) -> Result<Option<usize>, Problem> {
    for at in seen..input.len() {
        if input[at] != b'\n' {
            continue;
        }
        // A line feed alone ends a line for some parsers and not for others.
        if at == 0 || input[at - 1] != b'\r' {
            return Err(Problem::bad_request("a line of the head does not end in CR LF"));
        }
        if at >= 3 && input[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Reads a head that is there from its first byte to its last.
pub(super) fn parse(input: &[u8]) -> Result<Head, Problem> {
    let mut lines = [httparse::EMPTY_HEADER; HEADER_LINES];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(input) {
        Ok(httparse::Status::Complete(length)) if length == input.len() => {}
        Ok(_) => return Err(Problem::bad_request("the head is not that of an HTTP/1.1 request")),
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::head_too_large()),
        Err(httparse::Error::Version) => return Err(Problem::version()),
        Err(_) => return Err(Problem::bad_request("the head is not that of an HTTP/1.1 request")),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let start = method.len() + 1;
    if input.get(start..start + target.len()) != Some(target.as_bytes()) {
        return Err(Problem::bad_request("the request line has more than two single spaces"));
    }
    let newest = request.version == Some(1);
    let facts = Facts::of(request.headers)?;
    if newest && facts.hosts != 1 {
        return Err(Problem::bad_request("a request has exactly one Host"));
    }
    Ok(Head {
        method: Method::of(method),
        target: start..start + target.len(),
        length: input.len(),
        framing: facts.framing(newest)?,
        keep_alive: newest && !facts.close,
        expects_continue: facts.expects_continue && newest,
    })
}

/// What the header lines say that matters here.
#[derive(Default)]
struct Facts {
    length: Option<usize>,
    chunked: bool,
    close: bool,
    expects_continue: bool,
    hosts: usize,
}

impl Facts {
    fn of(lines: &[httparse::Header<'_>]) -> Result<Self, Problem> {
        let mut facts = Self::default();
        for line in lines {
            // Lengths first: most names are told apart by them.
            match line.name.len() {
                4 if line.name.eq_ignore_ascii_case("host") => facts.hosts += 1,
                6 if line.name.eq_ignore_ascii_case("expect") => facts.expect(line.value)?,
                10 if line.name.eq_ignore_ascii_case("connection") => {
                    facts.close |= tokens(line.value).any(|token| token.eq_ignore_ascii_case(b"close"));
                }
                14 if line.name.eq_ignore_ascii_case("content-length") => facts.content_length(line.value)?,
                17 if line.name.eq_ignore_ascii_case("transfer-encoding") => facts.transfer_encoding(line.value)?,
                _ => {}
            }
        }
        Ok(facts)
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Problem> {
        self.expects_continue = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
        if self.expects_continue { Ok(()) } else { Err(Problem::expectation()) }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.length.is_some() {
            return Err(Problem::bad_request("more than one Content-Length"));
        }
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Problem::bad_request("Content-Length is not a number"));
        }
        // What does not fit is larger than any limit.
        let add = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
        self.length = Some(digits.iter().fold(0, add));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::bad_request("Transfer-Encoding is something else than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, newest: bool) -> Result<Framing, Problem> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Problem::bad_request("both Content-Length and Transfer-Encoding")),
            (true, None) if !newest => Err(Problem::bad_request("Transfer-Encoding before HTTP/1.1")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, u16> {
        let end = end(text.as_bytes(), 0).map_err(|problem| problem.status())?.unwrap();
        parse(&text.as_bytes()[..end]).map_err(|problem| problem.status())
    }

    #[test]
    fn a_plain_request_is_read() {
        let text = "POST /a?b=c HTTP/1.1\r\nHost: k\r\nContent-Length: 12\r\n\r\n{}";
        let head = head(text).unwrap();
        assert_eq!(&text[head.target.clone()], "/a?b=c");
        assert_eq!((head.method, head.framing, head.keep_alive), (Method::Post, Framing::Length(12), true));
        assert_eq!(head.length, text.len() - 2);
    }

    #[test]
    fn the_end_is_found_however_the_head_arrives_in_pieces() {
        let text = b"GET / HTTP/1.1\r\nHost: k\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(end(&text[..cut], 0), Ok(None), "{cut}");
            assert_eq!(end(text, cut), Ok(Some(text.len())), "{cut}");
        }
    }

    #[test]
    fn framing_that_is_open_to_interpretation_is_refused() {
        for lines in [
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 2",
            "Content-Length: 2\r\nContent-Length: 2",
            "Content-Length: 2, 2",
            "Content-Length: +2",
            "Content-Length: 0x2",
            "Content-Length:",
            "Content-Length : 2",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "X: a\r\n b",
            "X: a\nb: c",
            "X: a\0b",
            "Host: again",
            " X: a",
        ] {
            assert_eq!(head(&format!("POST / HTTP/1.1\r\nHost: k\r\n{lines}\r\n\r\n")).err(), Some(400), "{lines}");
        }
        assert_eq!(head("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").err(), Some(400));
        assert_eq!(head("GET / HTTP/1.1\r\n\r\n").err(), Some(400));
        assert_eq!(head("GET  / HTTP/1.1\r\nHost: k\r\n\r\n").err(), Some(400));
    }

    #[test]
    fn a_length_beyond_all_integers_is_large_and_not_small() {
        let head = head("POST / HTTP/1.1\r\nHost: k\r\nContent-Length: 99999999999999999999999\r\n\r\n").unwrap();
        assert_eq!(head.framing, Framing::Length(usize::MAX));
    }

    #[test]
    fn a_client_can_say_that_it_closes() {
        for lines in ["Connection: close", "connection: foo, Close"] {
            assert!(!head(&format!("GET / HTTP/1.1\r\nHost: k\r\n{lines}\r\n\r\n")).unwrap().keep_alive);
        }
        assert!(!head("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
    }
}
