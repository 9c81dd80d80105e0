//! One timer per connection, moved instead of made for every request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The time for something was over before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

pub(super) struct Deadline {
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn new() -> Self {
        Self { timer: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    /// Sets the time that is left. Moving a deadline further away is cheaper than moving it nearer.
    pub(super) fn set(&mut self, left: Duration) {
        self.timer.as_mut().reset(Instant::now() + left);
    }

    /// Does `work` unless the deadline comes first.
    pub(super) async fn meet<W: Future>(&mut self, work: W) -> Result<W::Output, Elapsed> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.timer.as_mut().poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }
}
