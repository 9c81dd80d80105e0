//! A recording of raw time tags in place of light and instrument.
//!
//! Each frame is handed to a module once, whatever becomes of the sessions: epoch and frame belong together from the
//! first session on, and what an earlier session has taken is an empty frame to a later one.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use distill::pipeline::FrameInput;
use module::EpochLight;
use photonics::receiver::Frame;
use photonics::tagfile::FrameReader;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

/// A recording's bytes.
pub type Bytes = Box<dyn Read + Send>;

/// The epoch at which both ends' recordings begin: that of their first session.
pub type Beginning = Arc<OnceLock<u64>>;

/// See the module.
pub struct Playback {
    /// Number of the first frame that is played, and how many follow.
    first: u64,
    frames: u64,
    begins: Beginning,
    /// Ends it early.
    drain: OnceLock<CancellationToken>,
    state: Mutex<State>,
}

struct State {
    reader: FrameReader<Bytes>,
    /// Read, and not handed over yet.
    waiting: Option<Frame>,
    /// The first frame that was not handed over, counted from the first.
    next: u64,
    ended: bool,
}

impl Playback {
    pub fn new(reader: FrameReader<Bytes>, first: u64, frames: u64, begins: Beginning) -> Self {
        let state = Mutex::new(State { reader, waiting: None, next: 0, ended: false });
        Self { first, frames, begins, drain: OnceLock::new(), state }
    }

    /// Ends early when `drain` is cancelled. The first call counts.
    pub fn end_with(&self, drain: CancellationToken) {
        self.drain.get_or_init(|| drain);
    }

    /// Hands frames to a session that starts at `first_epoch`, until the end or until nobody takes them any more.
    pub async fn play(&self, first_epoch: u64, clicks: mpsc::Sender<Result<EpochLight>>) -> Result<()> {
        let begins = *self.begins.get_or_init(|| first_epoch);
        // An earlier session lets go as soon as it sees that its module has gone.
        let mut state = self.state.lock().await;
        for epoch in first_epoch.. {
            // Only what is sure to be taken is read.
            let room = clicks.reserve().await.context("hand over clicks: the module has gone")?;
            let index = epoch.saturating_sub(begins);
            let end = index >= self.frames || self.drain.get().is_some_and(CancellationToken::is_cancelled);
            let frames = if end { Vec::new() } else { vec![state.take(self.first, index)] };
            let frames = frames
                .into_iter()
                .map(|Frame { number, tags }| FrameInput::tags(number, tags, String::new()))
                .collect();
            room.send(Ok(EpochLight { epoch, frames, outage: String::new(), end }));
            if end {
                break;
            }
        }
        Ok(())
    }
}

impl State {
    /// The frame of that index; without tags where the recording has none, or they were handed over before.
    fn take(&mut self, first: u64, index: u64) -> Frame {
        let number = first + index;
        let empty = Frame { number, tags: Vec::new() };
        if index < self.next {
            return empty;
        }
        self.next = index + 1;
        loop {
            match self.waiting.take() {
                Some(frame) if frame.number == number => return frame,
                Some(frame) if frame.number > number => {
                    self.waiting = Some(frame);
                    return empty;
                }
                Some(_) => {}
                None if self.ended => return empty,
                None => {}
            }
            self.waiting = self.reader.next_frame().unwrap_or_else(|error| {
                // Known from the survey; what came before it is good.
                tracing::debug!("the recording ends: {error}");
                None
            });
            self.ended = self.waiting.is_none();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use distill::sifting::Light;
    use photonics::tag::{tag, units};
    use photonics::tagfile::{Format, TagReader, TagWriter};

    use super::*;

    /// 50 ticks of 4 ps make a frame; each has one click but frame 3.
    const FRAME_PS: u64 = 200;

    fn playback(frames: u64, begins: &Beginning) -> Playback {
        let tags = (0..10u64).filter(|number| *number != 3).map(|number| tag(number * 50 + 7, 1)).collect();
        let mut writer = TagWriter::new(Vec::new(), Format::A1).unwrap();
        writer.write(&Frame { number: 0, tags }).unwrap();
        let bytes: Bytes = Box::new(std::io::Cursor::new(writer.finish().unwrap()));
        let reader = FrameReader::new(TagReader::new(bytes, Format::A1).unwrap(), FRAME_PS, vec![1, 2, 3, 4]);
        Playback::new(reader, 0, frames, begins.clone())
    }

    /// What a session gets: per epoch the number of the frame, and the frame that its click was recorded in.
    async fn session(playback: &Playback, first_epoch: u64, epochs: usize) -> Vec<(u64, u64, Option<u64>)> {
        let (tx, mut rx) = mpsc::channel::<Result<EpochLight>>(2);
        let taking = async {
            let mut got = Vec::new();
            while got.len() < epochs {
                let Some(Ok(done)) = rx.recv().await else { break };
                got.extend(done.frames.iter().map(|frame| {
                    let Light::Tags(tags) = &frame.light else { panic!("a recording has tags") };
                    (done.epoch, frame.number, tags.first().map(|tag| units(*tag) / 50))
                }));
                if done.end {
                    break;
                }
            }
            drop(rx);
            got
        };
        tokio::join!(playback.play(first_epoch, tx), taking).1
    }

    #[tokio::test]
    async fn a_recording_is_played_frame_by_frame() {
        let playback = playback(10, &Beginning::default());
        let got = session(&playback, 500, 100).await;
        let expected = (0..10).map(|i| (500 + i, i, (i != 3).then_some(i)));
        assert_eq!(got, expected.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_later_session_goes_on_where_the_recording_was() {
        let playback = playback(10, &Beginning::default());
        let first = session(&playback, 500, 4).await;
        assert_eq!(first.len(), 4);
        // The peer was further: both go on from there.
        let second = session(&playback, 507, 100).await;
        assert_eq!(second, [(507, 7, Some(7)), (508, 8, Some(8)), (509, 9, Some(9))]);
        // Nothing that was handed over comes again, whatever a session asks for.
        let third = session(&playback, 502, 100).await;
        assert_eq!(third.len(), 8);
        assert!(third.iter().all(|(_, _, click)| click.is_none()), "{third:?}");
    }

    #[tokio::test]
    async fn both_ends_count_from_the_first_session_of_either() {
        let begins = Beginning::default();
        let (one, other) = (playback(10, &begins), playback(10, &begins));
        assert_eq!(session(&one, 500, 2).await.len(), 2);
        let got = session(&other, 503, 2).await;
        assert_eq!(got, [(503, 3, None), (504, 4, Some(4))]);
    }

    #[tokio::test]
    async fn draining_ends_it() {
        let playback = playback(10, &Beginning::default());
        let drain = CancellationToken::new();
        playback.end_with(drain.clone());
        assert_eq!(session(&playback, 0, 3).await.len(), 3);
        drain.cancel();
        assert_eq!(session(&playback, 3, 100).await, []);
    }
}
