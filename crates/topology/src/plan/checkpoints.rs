//! How often what was sifted of a block is closed by a tag of either end, and what tags cost beside the key.

use distill::auth::refill_bits;
use distill::config::PostProcessing;

use super::estimate::RECONCILIATION_EFFICIENCY;
use super::key::KeyInputs;
use super::{Directory, Plan, PlannedLink, RunOptions, RunPlan, Service, links, round_epochs, run_plan};
use crate::document::{Link, Spec};
use crate::figure::{Figure, Figures};

/// Share of the key that tags should stay below.
pub const SHARE_MAX: f64 = 0.01;

/// Where the topology does not say how often, checkpoints are no closer than this: shorter blocks have none.
const INTERVAL_PS: u64 = 30 * 60 * 1_000_000_000_000;

/// Stretches of a block: numbers that divide well, so that a link that changes a little keeps its own.
const CHOICES: [u64; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48, 72, 96, 144];

/// Most stretches of a block. Each is a file while the block is sifted.
pub const STRETCHES_MAX: u64 = 1000;

/// What tags cost a link, and what it makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub block_s: f64,
    /// Light between two checkpoints; of a block without one, all of it.
    pub interval_s: f64,
    /// Of a block, of both ends together: its tags, and shares of the keys under which they are made.
    pub tag_bits: f64,
    /// Of a block, tags included.
    pub key_bits: f64,
}

impl Budget {
    /// What blocks of this link cost, where each has so much key. An end makes a tag where it closes a round: once in a
    /// block, and at each checkpoint. What else it says costs none.
    pub fn of(post_processing: &PostProcessing, key_bits: f64) -> Self {
        let PostProcessing { framing, authentication, .. } = post_processing;
        let pair = refill_bits(authentication.tags_per_hash_key) as f64;
        let stretches = authentication.stretches.max(1) as f64;
        let block_s = framing.round_s();
        Self { block_s, interval_s: block_s / stretches, tag_bits: pair * stretches, key_bits }
    }

    pub fn tag_bits_per_hour(&self) -> f64 {
        self.tag_bits / self.block_s * 3600.0
    }

    pub fn key_bits_per_hour(&self) -> f64 {
        self.key_bits / self.block_s * 3600.0
    }

    /// Share of the key that goes into tags; all of it where there is less.
    pub fn share(&self) -> f64 {
        if self.key_bits > 0.0 { (self.tag_bits / self.key_bits).min(1.0) } else { 1.0 }
    }

    /// The link makes key, and spends all of it on tags.
    pub fn is_overdrawn(&self) -> bool {
        self.key_bits > 0.0 && self.tag_bits >= self.key_bits
    }

    pub fn tell(&self, figures: &mut Figures) {
        for (figure, value) in [
            (Figure::TagBitsPerHour, self.tag_bits_per_hour()),
            (Figure::KeyBitsPerHour, self.key_bits_per_hour()),
            (Figure::CheckpointInterval, self.interval_s),
            (Figure::AuthenticationShare, self.share()),
        ] {
            figures.set(figure, crate::figure::Measured::Value(value));
        }
    }
}

impl Plan {
    /// What tags cost a link; nothing of one that is not in the plan.
    pub fn budget(&self, link: &PlannedLink, efficiency: f64) -> Option<Budget> {
        let (post_processing, bps) = match self.prepared(link) {
            Some(parts) => (parts.post_processing, parts.predict(efficiency).chosen_bps()),
            None => {
                let parts = self.entangled(link)?;
                let key = KeyInputs { reconciliation_efficiency: efficiency, ..KeyInputs::of(parts.post_processing) };
                let point = parts.operating_point(&parts.inputs());
                (parts.post_processing, key.rate(&point.prediction).by(key.security.bound))
            }
        };
        Some(Budget::of(post_processing, bps * post_processing.framing.round_s()))
    }
}

/// A link as it is planned, with the number of stretches that its blocks are sifted in.
pub(super) fn plan(link: &Link, run: RunPlan<'_>) -> Option<(PlannedLink, Vec<Service>)> {
    let (planned, services) = links::plan(link, run)?;
    if link.authentication.checkpoint.is_none() && link.round.rounded() <= INTERVAL_PS {
        return Some((planned, services));
    }
    let mut plan = Plan::of_one(planned, services, run);
    let stretches = match link.authentication.checkpoint {
        Some(interval) => (link.round.rounded() / interval.rounded().max(1)).max(1),
        None => affordable(&plan, link, run.epoch_ps),
    };
    for module in plan.services.iter_mut().filter_map(|service| service.config.module_mut()) {
        module.protocol.post_processing.authentication.stretches = stretches;
    }
    Some((plan.links.pop()?, plan.services))
}

/// The most stretches that keep tags below their share of the key.
fn affordable(plan: &Plan, link: &Link, epoch_ps: u64) -> u64 {
    let budget = plan.links.first().and_then(|planned| plan.budget(planned, RECONCILIATION_EFFICIENCY));
    let Some(budget) = budget else { return 1 };
    let frames = round_epochs(link, epoch_ps);
    let fits = |stretches: u64| {
        frames.is_multiple_of(stretches)
            && link.round.rounded() / stretches >= INTERVAL_PS
            && stretches as f64 * budget.tag_bits <= SHARE_MAX * budget.key_bits
    };
    CHOICES.into_iter().filter(|stretches| fits(*stretches)).max().unwrap_or(1)
}

/// What tags cost a link that is good by itself, as it is planned.
pub(crate) fn budget(spec: &Spec, link: &Link) -> Option<Budget> {
    let run = run_plan(spec, &RunOptions::default()).of(link);
    let (planned, services) = plan(link, run)?;
    let plan = Plan::of_one(planned, services, run);
    plan.budget(plan.links.first()?, RECONCILIATION_EFFICIENCY)
}

impl Plan {
    /// A link and nothing else, for what the formulae say of it.
    fn of_one(link: PlannedLink, services: Vec<Service>, run: RunPlan<'_>) -> Self {
        Self {
            topology: String::new(),
            latency_epochs: run.latency_epochs,
            speed: run.speed,
            limit_ps: run.limit_ps,
            tags_end_ps: run.tags_end_ps,
            skew_ps: 0,
            repeatable: run.seed.is_some(),
            pacer_of_one: false,
            faults_allowed: run.faults_allowed,
            links: vec![link],
            twin_fields: Vec::new(),
            services,
            directory: Directory::default(),
            warnings: Vec::new(),
            no_path: Vec::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::diagnostic::{Diagnostic, Severity};

    fn shipped(name: &str) -> String {
        std::fs::read_to_string(format!("{}/../../topologies/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn of(text: &str) -> Vec<(u64, Budget)> {
        let topology = crate::parse("link.yaml", text.as_bytes()).unwrap().topology;
        let plan = super::super::plan(&topology, &RunOptions::default());
        let stretches = |link: &PlannedLink| {
            let mut ends = plan.modules().filter(|module| module.link == link.name);
            let of_end = ends.next().unwrap().protocol.post_processing.authentication.stretches;
            assert!(ends.all(|end| end.protocol.post_processing.authentication.stretches == of_end));
            of_end
        };
        plan.links.iter().map(|link| (stretches(link), plan.budget(link, RECONCILIATION_EFFICIENCY).unwrap())).collect()
    }

    fn refused(text: &str) -> Diagnostic {
        let errors = crate::parse("link.yaml", text.as_bytes()).unwrap_err().diagnostics;
        let errors: Vec<&Diagnostic> = errors.iter().filter(|found| found.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].clone()
    }

    #[test]
    fn a_block_of_hours_is_closed_as_often_as_costs_below_a_hundredth_of_its_key() {
        let dot = of(&shipped("quantum-dot-120.yaml"));
        let (stretches, budget) = dot[0];
        assert!((4..=12).contains(&stretches), "{stretches}");
        assert!(budget.interval_s >= 1800.0 && budget.share() < SHARE_MAX, "{budget:?}");
        // Twice as many would cost more, or be closer than half an hour.
        assert!(2.0 * budget.share() > SHARE_MAX || budget.interval_s < 3600.0, "{budget:?}");
    }

    #[test]
    fn blocks_of_at_most_half_an_hour_have_no_checkpoint_unless_the_topology_says_so() {
        for name in ["nice.yaml", "quantum-dot-79.yaml", "ukqn-backbone.yaml", "t12-50km.yaml"] {
            assert!(of(&shipped(name)).iter().all(|(stretches, _)| *stretches == 1), "{name}");
        }
        let asked = shipped("quantum-dot-79.yaml").replace("authentication: {", "authentication: {checkpoint: 2 min, ");
        let (stretches, budget) = of(&asked)[0];
        assert_eq!((stretches, budget.interval_s), (5, 120.0));
        let longer = asked.replace("2 min", "20 min");
        assert_eq!(of(&longer)[0].0, 1);
    }

    #[test]
    fn an_interval_that_does_not_divide_the_round_is_refused_where_it_stands() {
        let text = shipped("quantum-dot-79.yaml");
        for interval in ["7 min", "0 s", "90 us", "0.1 s"] {
            let asked = text.replace("authentication: {", &format!("authentication: {{checkpoint: {interval}, "));
            let errors = crate::parse("link.yaml", asked.as_bytes()).unwrap_err().diagnostics;
            let found = errors.iter().find(|found| found.path.ends_with("authentication.checkpoint"));
            assert!(found.is_some_and(|found| found.position.line > 0), "{interval}: {errors:?}");
        }
    }

    #[test]
    fn a_link_that_would_spend_all_of_its_key_on_tags_is_refused() {
        let text = shipped("nice-50km.yaml").replace("round: 10 s", "round: 0.02 s");
        let found = refused(&text);
        assert!(found.path.ends_with(".round") && found.message.contains("bit an hour"), "{found:?}");
        assert!(found.hint.is_some_and(|hint| hint.contains("longer")));
        let often = shipped("nice-50km.yaml").replace("authentication: {", "authentication: {checkpoint: 20 ms, ");
        let found = refused(&often);
        assert!(found.path.ends_with(".authentication.checkpoint"), "{found:?}");
    }
}
