//! Sites that do not reach each other.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures::future::BoxFuture;

use super::Desk;
use crate::dial::Dial;
use crate::duplex::Duplex;

/// Messages that may wait on the way through.
const CAPACITY: usize = 4;

impl Desk {
    /// A stream to or from a site, which ends when the two are cut off from each other. None where they are.
    pub fn reach<S, R>(&self, site: &str, stream: Duplex<S, R>) -> Option<Duplex<S, R>>
    where
        S: Send + 'static,
        R: Send + 'static,
    {
        if self.is_cut_off(site) {
            return None;
        }
        let (ours, inner) = Duplex::pair(CAPACITY);
        let (desk, site) = (self.clone(), site.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = carry(inner, stream) => {}
                () = desk.cut_off(&site) => {}
            }
        });
        Some(ours)
    }
}

/// Until both directions have ended.
async fn carry<S, R>(inner: Duplex<R, S>, outer: Duplex<S, R>) {
    let ((to_inner, mut from_inner), (to_outer, mut from_outer)) = (inner.split(), outer.split());
    let out = async move {
        while let Some(message) = from_inner.recv().await {
            if to_outer.send(message).await.is_err() {
                return;
            }
        }
    };
    let back = async move {
        loop {
            let message = tokio::select! {
                message = from_outer.recv() => message,
                () = to_inner.closed() => return,
            };
            let Some(message) = message else { return };
            if to_inner.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(out, back);
}

struct Reaching<S, R> {
    desk: Desk,
    site: String,
    dial: Arc<dyn Dial<S, R>>,
}

impl<S: Send + 'static, R: Send + 'static> Dial<S, R> for Reaching<S, R> {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<S, R>>> {
        Box::pin(async move {
            let stream = tokio::select! {
                biased;
                () = self.desk.cut_off(&self.site) => bail!("{} and {} are cut off from each other", self.desk.place().site, self.site),
                stream = self.dial.dial() => stream?,
            };
            match self.desk.reach(&self.site, stream) {
                Some(stream) => Ok(stream),
                None => bail!("{} and {} are cut off from each other", self.desk.place().site, self.site),
            }
        })
    }
}

/// The way to a site, which a fault can close.
pub fn dial<S, R>(desk: Option<&Desk>, site: &str, dial: Arc<dyn Dial<S, R>>) -> Arc<dyn Dial<S, R>>
where
    S: Send + 'static,
    R: Send + 'static,
{
    match desk {
        Some(desk) => Arc::new(Reaching { desk: desk.clone(), site: site.to_owned(), dial }),
        None => dial,
    }
}
