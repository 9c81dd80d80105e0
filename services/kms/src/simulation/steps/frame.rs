//! What goes between a site's process and its driver.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream between the two key stores, by its number: it begins, something is said, it ends.
    Open,
    Pair,
    Close,
    /// An application asks for this many keys; the answer has each ID and its key.
    Ask,
    /// An application fetches a key by its ID.
    Fetch,
    /// A request of the relay, and what is answered.
    Relay,
    /// Arms a failpoint.
    Arm,
    /// Asks the process to end.
    Stop,
    /// Whether the two key stores talk, then which one was put back and why, if one was.
    Status,
}

const KINDS: [Kind; 9] =
    [Kind::Open, Kind::Pair, Kind::Close, Kind::Ask, Kind::Fetch, Kind::Relay, Kind::Arm, Kind::Stop, Kind::Status];

#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    pub number: u64,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn new(kind: Kind, number: u64, body: impl Into<Vec<u8>>) -> Self {
        Self { kind, number, body: body.into() }
    }
}

pub async fn read(from: &mut OwnedReadHalf) -> io::Result<Frame> {
    let kind = from.read_u8().await?;
    let number = from.read_u64_le().await?;
    let mut body = vec![0; from.read_u32_le().await? as usize];
    from.read_exact(&mut body).await?;
    Ok(Frame { kind: KINDS[usize::from(kind)], number, body })
}

/// Where frames go that are to be written, until the other end has gone.
pub fn writer(mut to: OwnedWriteHalf) -> mpsc::UnboundedSender<Frame> {
    let (tx, mut frames) = mpsc::unbounded_channel::<Frame>();
    tokio::spawn(async move {
        while let Some(Frame { kind, number, body }) = frames.recv().await {
            let mut bytes = Vec::with_capacity(13 + body.len());
            bytes.push(kind as u8);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&body);
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    tx
}
