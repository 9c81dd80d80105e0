//! Heavy work away from the threads that answer calls: at most as many pieces at a time as there are cores, the others
//! in the order in which they came.
//!
//! The caller waits for its piece of work, so no more pieces wait than there are callers. Work runs on threads of its
//! own, with which the system shares the cores: an amplification never keeps a request for a key waiting.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;

/// The threads that heavy work may take.
pub struct Pool(Arc<Semaphore>);

/// The pool of this process, as wide as the machine.
pub fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::of(std::thread::available_parallelism().map_or(1, usize::from)))
}

impl Pool {
    /// For at most this many pieces of work at a time.
    pub fn of(width: usize) -> Self {
        Self(Arc::new(Semaphore::new(width.max(1))))
    }

    /// Waits for its turn, then does the work and gives what came of it; a panic goes on in the caller. Work that was
    /// begun is done, whether or not somebody still waits for it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let turn = self.0.clone().acquire_owned().await.context("wait for a thread")?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        match work.await {
            Ok(done) => Ok(done),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(error).context("the process ends"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// What hangs is given up after this.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_long_step_does_not_delay_another_task_on_a_runtime_with_one_thread() {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (release, released) = channel();
        let step = tokio::spawn(pool().run(move || {
            begun.send(()).unwrap();
            released.recv_timeout(PATIENCE)
        }));
        begins.await.unwrap();
        // The other task ends the step: were it kept from running, the step would end late and say so.
        tokio::spawn(async move { release.send("a key was asked for").unwrap() }).await.unwrap();
        assert_eq!(step.await.unwrap().unwrap(), Ok("a key was asked for"));
    }

    #[tokio::test]
    async fn work_waits_for_its_turn_and_comes_in_the_order_in_which_it_was_asked_for() {
        let pool = Pool::of(1);
        let (order, (release, released)) = (Arc::new(Mutex::new(Vec::new())), channel::<()>());
        let held = pool.run(move || released.recv_timeout(PATIENCE).is_ok());
        let noted = |number: u32| {
            let order = order.clone();
            pool.run(move || order.lock().unwrap().push(number))
        };
        let release = async {
            // All others have asked by now: a join polls in order.
            assert!(order.lock().unwrap().is_empty());
            release.send(()).unwrap();
        };
        let (held, one, two, three, ()) = tokio::join!(held, noted(1), noted(2), noted(3), release);
        assert!(held.unwrap());
        one.and(two).and(three).unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_panic_goes_on_in_the_caller_and_gives_its_place_back() {
        let pool = Arc::new(Pool::of(1));
        let panics = pool.clone();
        let task = tokio::spawn(async move { panics.run::<()>(|| panic!("a broken step")).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }
}
