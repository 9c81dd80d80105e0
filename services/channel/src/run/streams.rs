//! Streams that may not be there.

use tokio::sync::mpsc;
use tokio::time::Instant;

pub type Halves<'a, S, R> = (Option<&'a mpsc::Sender<S>>, Option<&'a mut mpsc::Receiver<R>>);

pub fn halves<S, R>(stream: &mut Option<shell::Duplex<S, R>>) -> Halves<'_, S, R> {
    match stream {
        Some(stream) => (Some(&stream.tx), Some(&mut stream.rx)),
        None => (None, None),
    }
}

/// Room for a message; never where there is no stream, none where it has ended.
pub async fn reserve<S>(tx: Option<&mpsc::Sender<S>>) -> Option<mpsc::Permit<'_, S>> {
    match tx {
        Some(tx) => tx.reserve().await.ok(),
        None => std::future::pending().await,
    }
}

pub async fn reserve_at<S>(tx: Option<&mpsc::Sender<S>>, due: Instant) -> Option<mpsc::Permit<'_, S>> {
    if due > Instant::now() {
        tokio::time::sleep_until(due).await;
    }
    reserve(tx).await
}

pub async fn receive<R>(rx: Option<&mut mpsc::Receiver<R>>) -> Option<R> {
    match rx {
        Some(rx) => rx.recv().await,
        None => std::future::pending().await,
    }
}

pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
