//! One connection's bytes: requests in, answers out, each with limits of size and time.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::Limits;
use super::deadline::Deadline;
use super::head::{self, Framing, Head};
use super::reply::{Problem, Reply};

/// What is read at a time.
const READ_BYTES: usize = 4 << 10;
/// An output buffer that one large answer left behind is not kept if it is larger than this.
const OUTPUT_KEPT_BYTES: usize = 64 << 10;
/// A line that tells the size of a chunk.
const CHUNK_LINE_BYTES: usize = 128;
/// How much is read and thrown away, and for how long, so that a client that still sends sees why it was refused.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_millis(500);
/// Time for the last words on a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no next request.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client went away, said nothing for too long, or the server stops: nobody waits for an answer.
    Quiet,
    /// What arrived is no request that can be served; it is answered, and nothing after it is read.
    Refused(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Quiet
    }
}

/// A request that is there in full.
pub(super) struct Message {
    pub(super) head: Head,
    body: BodyPlace,
    /// How much of the input it takes, in bytes.
    length: usize,
}

enum BodyPlace {
    Input(Range<usize>),
    /// Put together from chunks.
    Joined(Vec<u8>),
}

pub(super) struct HttpStream<S> {
    stream: S,
    limits: Limits,
    deadline: Deadline,
    input: Vec<u8>,
    /// Cleared after every answer: it may have held key.
    output: Zeroizing<Vec<u8>>,
    date: Date,
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpStream<S> {
    pub(super) fn new(stream: S, limits: Limits) -> Self {
        Self {
            stream,
            limits,
            deadline: Deadline::new(),
            input: Vec::with_capacity(READ_BYTES),
            output: Zeroizing::new(Vec::with_capacity(1024)),
            date: Date::default(),
        }
    }

    /// Waits for the next request. Between two of them `stop` ends the waiting.
    pub(super) async fn next(&mut self, stop: impl Future<Output = ()>) -> Result<Message, Stop> {
        if self.input.is_empty() {
            self.deadline.set(self.limits.idle);
            let first = async {
                tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut self.input) => read.unwrap_or(0),
                    () = stop => 0,
                }
            };
            if self.deadline.meet(first).await.unwrap_or(0) == 0 {
                return Err(Stop::Quiet);
            }
        }
        let head = self.read_head().await?;
        self.read_body(head).await
    }

    pub(super) fn target(&self, message: &Message) -> &str {
        std::str::from_utf8(&self.input[message.head.target.clone()]).unwrap_or_default()
    }

    pub(super) fn body<'m>(&'m self, message: &'m Message) -> &'m [u8] {
        match &message.body {
            BodyPlace::Input(place) => &self.input[place.clone()],
            BodyPlace::Joined(body) => body,
        }
    }

    /// Forgets a request that was answered. What came after it stays.
    pub(super) fn done(&mut self, message: &Message) {
        self.input.drain(..message.length);
        if self.input.capacity() > 4 * READ_BYTES && self.input.len() <= READ_BYTES {
            self.input.shrink_to(READ_BYTES);
        }
    }

    /// Sends an answer in one piece.
    pub(super) async fn send(&mut self, reply: &Reply, keep_alive: bool, with_body: bool) -> io::Result<()> {
        reply.encode(&mut self.output, keep_alive, with_body, self.date.now());
        let (stream, output) = (&mut self.stream, &self.output);
        let written = tokio::time::timeout(self.limits.write, async {
            stream.write_all(output).await?;
            stream.flush().await
        })
        .await;
        self.output.as_mut_slice().zeroize();
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT_BYTES);
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the connection properly.
    pub(super) async fn close(mut self) {
        // Nobody is left to hear of a failure.
        let _ = tokio::time::timeout(GOODBYE, self.stream.shutdown()).await;
    }

    /// As [`close`](Self::close) for a client that may still be sending: bytes that nobody reads would make the system
    /// reset the connection, and the answer would be lost on its way.
    pub(super) async fn close_lingering(mut self) {
        let linger = async {
            self.stream.shutdown().await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.input.clear();
                let read = self.stream.read_buf(&mut self.input).await?;
                if read == 0 {
                    break;
                }
                left = left.saturating_sub(read);
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, linger).await;
    }

    /// Reads more input, until the deadline.
    async fn more(&mut self) -> Result<(), Stop> {
        if self.input.len() == self.input.capacity() {
            self.input.reserve(READ_BYTES);
        }
        match self.deadline.meet(self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(read)) if read > 0 => Ok(()),
            Ok(_) => Err(Stop::Quiet),
            Err(_) => Err(Problem::timed_out().into()),
        }
    }

    async fn read_head(&mut self) -> Result<Head, Stop> {
        let (mut seen, mut waited) = (0, false);
        loop {
            // Some clients end a body with a line of its own.
            if seen == 0 && self.input.starts_with(b"\r\n") {
                self.input.drain(..2);
            }
            let end = head::end(&self.input, seen)?;
            if end.unwrap_or(self.input.len()) > self.limits.head_bytes {
                let one_line = !self.input[..self.limits.head_bytes].contains(&b'\n');
                return Err(if one_line { Problem::target_too_long() } else { Problem::head_too_large() }.into());
            }
            if let Some(end) = end {
                return Ok(head::parse(&self.input[..end])?);
            }
            // Only a client that sends its head in pieces costs a timer of its own.
            if !std::mem::replace(&mut waited, true) {
                self.deadline.set(self.limits.head);
            }
            seen = self.input.len();
            self.more().await?;
        }
    }

    async fn read_body(&mut self, head: Head) -> Result<Message, Stop> {
        let start = head.length;
        match head.framing {
            Framing::Length(bytes) if bytes > self.limits.body_bytes => Err(Problem::body_too_large().into()),
            Framing::Length(bytes) => {
                let end = start + bytes;
                if self.input.len() < end {
                    self.begin_body(&head).await?;
                    self.input.reserve(end - self.input.len());
                }
                while self.input.len() < end {
                    self.more().await?;
                }
                Ok(Message { head, body: BodyPlace::Input(start..end), length: end })
            }
            Framing::Chunked => {
                self.begin_body(&head).await?;
                let (body, length) = self.read_chunks(start).await?;
                Ok(Message { head, body: BodyPlace::Joined(body), length })
            }
        }
    }

    async fn begin_body(&mut self, head: &Head) -> Result<(), Stop> {
        self.deadline.set(self.limits.body);
        if head.expects_continue {
            let go_on = async {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                self.stream.flush().await
            };
            self.deadline.meet(go_on).await.map_err(|_| Stop::Quiet)??;
        }
        Ok(())
    }

    /// Puts the chunks after `start` together. Returns them and where in the input they end.
    async fn read_chunks(&mut self, start: usize) -> Result<(Vec<u8>, usize), Stop> {
        let (mut body, mut at) = (vec![], start);
        loop {
            let (size, data) = self.chunk_size(at).await?;
            if size > self.limits.body_bytes - body.len() {
                return Err(Problem::body_too_large().into());
            }
            let end = data + size;
            while self.input.len() < end + 2 {
                self.more().await?;
            }
            if &self.input[end..end + 2] != b"\r\n" {
                // After the last chunk this refuses trailers, which no client of this interface sends.
                return Err(Problem::bad_request("a chunk does not end where it says").into());
            }
            if size == 0 {
                return Ok((body, end + 2));
            }
            body.extend_from_slice(&self.input[data..end]);
            // One-byte chunks must not make the input longer than the body.
            self.input.drain(start..end + 2);
            at = start;
        }
    }

    /// The size of the chunk whose line begins at `at`, and where its data begins.
    async fn chunk_size(&mut self, at: usize) -> Result<(usize, usize), Stop> {
        let invalid = || Stop::from(Problem::bad_request("a chunk's size is not a hexadecimal number"));
        loop {
            let rest = &self.input[at..];
            if let Some(length) = rest.iter().take(CHUNK_LINE_BYTES).position(|byte| *byte == b'\n') {
                let line = rest[..length].strip_suffix(b"\r").ok_or_else(invalid)?;
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let plain = line.iter().all(|byte| (0x20..0x7f).contains(byte));
                if !plain || digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(invalid());
                }
                let size = digits.iter().filter_map(|digit| char::from(*digit).to_digit(16));
                return Ok((size.fold(0, |sum, digit| sum << 4 | digit as usize), at + length + 1));
            }
            if rest.len() >= CHUNK_LINE_BYTES {
                return Err(invalid());
            }
            self.more().await?;
        }
    }
}

/// The time as HTTP writes it, formatted once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &[u8] {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.text.is_empty() || second != self.second {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        self.text.as_bytes()
    }
}
