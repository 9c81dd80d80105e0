//! Sharing a pool between the applications of a site: the hunger of one does not keep the others from their share.
//!
//! Whoever has asked lately has a claim on the pool. An application may draw as long as it has had less than its equal
//! share of what there was lately; beyond that it may draw what is left once the near needs of the others, up to their
//! shares, are set aside. So an application that is alone gets everything, what nobody else needs is not kept from
//! anybody, and one that asks little finds key however fast another one drains the pool.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use etsi014::supply::SaeId;

/// What was drawn counts less and less: after this time a third of it.
const MEMORY: Duration = Duration::from_secs(60);
/// An application that has not asked for so long has no claim.
const CLAIM: Duration = Duration::from_secs(600);
/// What is set aside for an application: this many requests like its largest lately, and this much time at its rate.
const REQUESTS_AHEAD: f64 = 4.0;
const TIME_AHEAD: Duration = Duration::from_secs(10);

/// The applications of one site at one pool.
#[derive(Default)]
pub struct FairShare {
    claims: Mutex<Vec<Claim>>,
}

/// What an application may have instead of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub allowed_bytes: u64,
    /// Set aside for the others.
    pub reserved_bytes: u64,
}

struct Claim {
    sae: SaeId,
    /// Drawn lately; falls away with [`MEMORY`].
    drawn_bytes: f64,
    /// Largest request lately; falls away as well.
    request_bytes: f64,
    at: Instant,
}

impl Claim {
    fn age(&mut self, now: Instant) {
        let fade = (-now.saturating_duration_since(self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.drawn_bytes *= fade;
        self.request_bytes *= fade;
        self.at = now;
    }

    /// What this application should find when it asks next, up to its share.
    fn reserve(&self, share_bytes: f64) -> f64 {
        let at_its_rate = self.drawn_bytes * TIME_AHEAD.as_secs_f64() / MEMORY.as_secs_f64();
        let need = REQUESTS_AHEAD * self.request_bytes + at_its_rate;
        need.min((share_bytes - self.drawn_bytes).max(0.0))
    }
}

impl FairShare {
    fn claims(&self) -> MutexGuard<'_, Vec<Claim>> {
        // Every change is one number.
        self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Books `bytes` for an application that asks for them, if it may have them of those that are there. An application
    /// that is alone may have everything, and what is there is not looked at.
    pub fn claim(&self, sae: &SaeId, bytes: u64, there: impl FnOnce() -> u64, now: Instant) -> Result<(), Refused> {
        let mut claims = self.claims();
        let own = Self::note(&mut claims, sae, bytes, now);
        if claims.len() > 1 {
            let refused = Self::allowed(&claims, own, there(), now);
            if bytes > refused.allowed_bytes {
                return Err(refused);
            }
        }
        claims[own].drawn_bytes += bytes as f64;
        Ok(())
    }

    /// Takes back what was booked and then not drawn.
    pub fn give_back(&self, sae: &SaeId, bytes: u64) {
        if let Some(claim) = self.claims().iter_mut().find(|claim| claim.sae == *sae) {
            claim.drawn_bytes = (claim.drawn_bytes - bytes as f64).max(0.0);
        }
    }

    /// The index of the claim of an application that asks.
    fn note(claims: &mut Vec<Claim>, sae: &SaeId, bytes: u64, now: Instant) -> usize {
        let at = claims.iter().position(|claim| claim.sae == *sae).unwrap_or_else(|| {
            claims.retain(|claim| now.saturating_duration_since(claim.at) < CLAIM);
            claims.push(Claim { sae: sae.clone(), drawn_bytes: 0.0, request_bytes: 0.0, at: now });
            claims.len() - 1
        });
        let claim = &mut claims[at];
        claim.age(now);
        claim.request_bytes = claim.request_bytes.max(bytes as f64);
        at
    }

    fn allowed(claims: &[Claim], own: usize, there_bytes: u64, now: Instant) -> Refused {
        let there = there_bytes as f64;
        // Ages are read and not set: the time at which an application asked last is what its claim ends by.
        let alive = claims.iter().filter(|claim| now.saturating_duration_since(claim.at) < CLAIM);
        let faded: Vec<Claim> = alive
            .map(|claim| {
                let mut faded = Claim { sae: claim.sae.clone(), ..*claim };
                faded.age(now);
                faded
            })
            .collect();
        let total = there + faded.iter().map(|claim| claim.drawn_bytes).sum::<f64>();
        let share = total / faded.len().max(1) as f64;
        let asking = &claims[own];
        let others = faded.iter().filter(|claim| claim.sae != asking.sae);
        let reserved = others.map(|claim| claim.reserve(share)).sum::<f64>();
        let allowed = (share - asking.drawn_bytes).max(there - reserved).clamp(0.0, there);
        Refused { allowed_bytes: allowed as u64, reserved_bytes: reserved as u64 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: u64 = 32;

    fn sae(name: &str) -> SaeId {
        SaeId::new(name).unwrap()
    }

    /// A pool with applications at it, in time that the test makes.
    struct Bench {
        share: FairShare,
        stored: u64,
        now: Instant,
    }

    impl Bench {
        fn new(stored: u64) -> Self {
            Self { share: FairShare::default(), stored, now: Instant::now() }
        }

        fn ask(&mut self, name: &str, bytes: u64) -> bool {
            let stored = self.stored;
            let granted = self.share.claim(&sae(name), bytes, || stored, self.now).is_ok();
            if granted && bytes > stored {
                self.share.give_back(&sae(name), bytes);
                return false;
            }
            self.stored -= if granted { bytes } else { 0 };
            granted
        }

        /// Draws key by key until nothing more is given.
        fn drain(&mut self, name: &str) -> u64 {
            std::iter::from_fn(|| self.ask(name, KEY).then_some(KEY)).sum()
        }

        fn wait(&mut self, seconds: f64) {
            self.now += Duration::from_secs_f64(seconds);
        }
    }

    #[test]
    fn whoever_is_alone_gets_everything() {
        let mut pool = Bench::new(10_000 * KEY);
        assert_eq!(pool.drain("greedy"), 10_000 * KEY);
    }

    #[test]
    fn a_modest_application_finds_key_beside_one_that_takes_all_it_gets() {
        let mut pool = Bench::new(0);
        assert!(!pool.ask("modest", KEY));
        let (mut greedy, mut modest) = (0, 0);
        for second in 0..600 {
            pool.stored += 100 * KEY;
            greedy += pool.drain("greedy");
            if second % 3 == 0 {
                assert!(pool.ask("modest", KEY), "nothing left in second {second}");
                modest += KEY;
            }
            greedy += pool.drain("greedy");
            pool.wait(1.0);
        }
        assert_eq!(modest, 200 * KEY);
        // What the modest one does not need is not kept from the other.
        assert!(greedy > 600 * 99 * KEY, "{} keys", greedy / KEY);
    }

    #[test]
    fn two_that_want_everything_get_half_each() {
        let mut pool = Bench::new(0);
        let mut drawn = [0, 0];
        for _ in 0..300 {
            pool.stored += 100 * KEY;
            for _ in 0..100 {
                for (at, name) in ["a", "b"].into_iter().enumerate() {
                    drawn[at] += if pool.ask(name, KEY) { KEY } else { 0 };
                }
            }
            pool.wait(1.0);
        }
        let ratio = drawn[0] as f64 / drawn[1] as f64;
        assert!((0.9..1.1).contains(&ratio), "{drawn:?}");
        assert!(drawn[0] + drawn[1] > 290 * 100 * KEY, "{drawn:?}");
    }

    #[test]
    fn a_late_comer_gets_its_share_of_what_comes_then() {
        let mut pool = Bench::new(50_000 * KEY);
        pool.drain("greedy");
        assert!(!pool.ask("late", KEY), "nothing is there");
        pool.stored += 100 * KEY;
        pool.drain("greedy");
        assert!(pool.ask("late", KEY));
    }

    #[test]
    fn a_claim_ends_when_nobody_asks_any_more() {
        let mut pool = Bench::new(100 * KEY);
        assert!(pool.ask("gone", 10 * KEY));
        pool.wait(CLAIM.as_secs_f64() + 1.0);
        assert_eq!(pool.drain("greedy"), 90 * KEY);
    }

    #[test]
    fn what_was_booked_and_not_drawn_is_given_back() {
        let pool = Bench::new(0);
        pool.share.claim(&sae("a"), 1000, || 2000, pool.now).unwrap();
        pool.share.give_back(&sae("a"), 1000);
        pool.share.claim(&sae("b"), 1000, || 2000, pool.now).unwrap();
        pool.share.claim(&sae("a"), 1000, || 1000, pool.now).unwrap();
    }
}
