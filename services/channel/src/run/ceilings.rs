//! The endpoint's reserve and its anchor: ceilings that are raised ahead of need, a fresh secret, a clean close.

use std::time::Duration;

use anchor::AnchorError;
use anyhow::{Context, Result};
use futures::future::BoxFuture;
use proto::channel::v1::ReserveReplaced;

use super::Task;
use super::handle::{RekeyRefused, Request};
use crate::reserve::{self, Raise, Settlement};

/// Wait before an anchor that did not answer is asked again.
const ANCHOR_RETRY: Duration = Duration::from_secs(1);

impl Task {
    pub(super) async fn rekey(&mut self, request: Request) {
        let answer = self.replace_reserve(&request.secret, request.generation).await;
        if answer.is_ok() {
            let (by, tags) = (request.by, self.endpoint.remaining());
            tracing::warn!(link = self.link, by, tags, "authentication reserve replaced");
            let replaced = ReserveReplaced { by, unix_ms: reserve::now_ms(), reserve_tags: tags };
            self.handle.status.replaced(replaced.clone());
            self.unsaid = Some(replaced);
            let actions = self.endpoint.rekeyed();
            self.handle.status.rolled_back(None);
            self.act(actions);
        }
        // Whoever asked may have gone.
        let _ = request.answer.send(answer.map(|()| self.endpoint.remaining()));
    }

    /// The anchor knows the ceilings of the fresh secret before the reserve has it, and those alone afterwards.
    async fn replace_reserve(&mut self, secret: &[u8], generation: Option<u64>) -> Result<(), RekeyRefused> {
        let invalid = |error: &dyn std::fmt::Display| RekeyRefused::Invalid(error.to_string());
        let reserve = self.endpoint.reserve_mut().ok_or(RekeyRefused::SessionOpen)?;
        let raise = reserve.before_rekey(secret, generation).map_err(|error| invalid(&error))?;
        blocking(raise.clone(), Raise::make).await.map_err(|error| invalid(&error))?;
        reserve.rekey(secret, generation, &raise).map_err(|error| invalid(&error))?;
        if let Err(error) = blocking(raise, Raise::make_alone).await {
            let why = shell::chain(&error);
            tracing::warn!(link = self.link, "the ceilings of the secret before are not forgotten yet: {why}");
        }
        Ok(())
    }

    /// Asks the anchor for more room before it is needed. An endpoint that rests needs none.
    pub(super) fn raise_ahead(&mut self) {
        if self.raising.is_some() || !(self.endpoint.waits() || self.endpoint.session().is_some()) {
            return;
        }
        self.raising = self.endpoint.reserve().raise_wanted().map(|raise| self.raise(raise, Duration::ZERO));
    }

    fn raise(&self, raise: Raise, wait: Duration) -> BoxFuture<'static, (Raise, bool)> {
        let link = self.link.clone();
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let made = blocking(raise.clone(), Raise::make).await;
            if let Err(error) = &made {
                let why = shell::chain(error);
                tracing::warn!(link, "the ceilings of the authentication reserve are not raised: {why}");
            }
            (raise, made.is_ok())
        })
    }

    pub(super) fn raised(&mut self, raise: &Raise, made: bool) {
        self.raising = None;
        if made {
            self.endpoint.keeper().raised(raise);
        } else if let Some(raise) = self.endpoint.reserve().raise_wanted() {
            self.raising = Some(self.raise(raise, ANCHOR_RETRY));
        }
    }

    /// The ceilings of a clean close are the counts: it costs no tag.
    pub(super) async fn settle(&mut self) {
        if let Some(raising) = self.raising.take() {
            raising.await;
        }
        if self.endpoint.reserve().rolled_back().is_some() {
            return;
        }
        if let Err(error) = blocking(self.endpoint.reserve().settlement(), Settlement::make).await {
            let why = shell::chain(&error);
            tracing::warn!(link = self.link, "the ceilings of the authentication reserve are not settled: {why}");
        }
    }
}

/// Asks an anchor, which blocks, away from what must not.
async fn blocking<T: Send + 'static>(what: T, ask: fn(&T) -> Result<(), AnchorError>) -> Result<()> {
    Ok(tokio::task::spawn_blocking(move || ask(&what)).await.context("ask the anchor")??)
}
