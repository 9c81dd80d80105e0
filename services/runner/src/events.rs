//! What all ends of a network tell, in one queue.

use proto::detector::v1::ModuleEvent;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Events that may wait for the one who follows them.
const WAITING: usize = 1024;

/// The events of all ends, with the index of the end. After `no_more` it closes behind what was told until then.
pub fn gather(
    ends: impl Iterator<Item = broadcast::Receiver<ModuleEvent>>,
    no_more: &CancellationToken,
) -> mpsc::Receiver<(usize, ModuleEvent)> {
    let (tx, rx) = mpsc::channel(WAITING);
    for (index, mut events) in ends.enumerate() {
        let (tx, no_more) = (tx.clone(), no_more.clone());
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    biased;
                    event = events.recv() => event,
                    () = no_more.cancelled() => break,
                };
                match event {
                    Ok(event) => {
                        if tx.send((index, event)).await.is_err() {
                            break;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
        });
    }
    rx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_right_before_the_end_is_not_lost() {
        let ends: Vec<_> = (0..3).map(|_| broadcast::channel(256).0).collect();
        let no_more = CancellationToken::new();
        let mut events = gather(ends.iter().map(broadcast::Sender::subscribe), &no_more);
        for end in &ends {
            for number in 0..200 {
                end.send(ModuleEvent { simulated_s: f64::from(number), event: None }).expect("somebody listens");
            }
        }
        // Nobody has run yet who would have taken any of them.
        no_more.cancel();
        let mut told = vec![Vec::new(); ends.len()];
        while let Some((index, event)) = events.recv().await {
            told[index].push(event.simulated_s);
        }
        let all: Vec<f64> = (0..200).map(f64::from).collect();
        assert_eq!(told, [all.clone(), all.clone(), all]);
    }
}
