//! `qkdnet plan`: what the formulae predict, before anything runs.

use distill::bounds::threshold_qber;
use photonics::expect::Bbm92Inputs;
use photonics::expect::load::load;
use photonics::expect::math::loss_db;
use photonics::expect::optimum::{OperatingPoint, optimum};
use runner::Failure;
use serde::Serialize;
use topology::figure::{Figure, Figures};
use topology::plan::checkpoints::Budget;
use topology::plan::estimate::EntangledParts;
use topology::plan::key::KeyInputs;
use topology::plan::proposal::{Proposal, propose};
use topology::plan::{Pairs, Plan, PlannedLink};

use super::{files, print, print_json};
use crate::cli::{Output, PlanArgs};

mod pulses;
mod text;
mod twin_fields;

use pulses::PulsesReport;
use twin_fields::TwinFieldReport;

/// Hash of each Cascade frame.
const VERIFICATION_BITS: f64 = 64.0;

/// What is printed.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    topology: String,
    services: usize,
    links: Vec<LinkReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proposals: Vec<Proposal>,
    total_tags_hz: f64,
    total_memory_bytes: f64,
    warnings: Vec<String>,
}

/// A link by its kind.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum LinkReport {
    Pairs(Box<PairsReport>),
    Pulses(Box<PulsesReport>),
    TwinField(Box<TwinFieldReport>),
}

impl LinkReport {
    fn tags_hz(&self) -> [f64; 2] {
        match self {
            LinkReport::Pairs(report) => report.tags_hz,
            LinkReport::Pulses(report) => report.tags_hz,
            LinkReport::TwinField(_) => [0.0; 2],
        }
    }

    fn module_memory_bytes(&self) -> [f64; 2] {
        match self {
            LinkReport::Pairs(report) => report.module_memory_bytes,
            LinkReport::Pulses(report) => report.module_memory_bytes,
            LinkReport::TwinField(_) => [0.0; 2],
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct PairsReport {
    name: String,
    source_site: String,
    sites: [String; 2],
    arm_loss_db: [f64; 2],
    total_loss_db: f64,
    peak_fwhm_ps: f64,
    window_ps: f64,
    /// Where the pump loop settles, or the pump that is set where there is none.
    operating: Point,
    /// The pump with the highest asymptotic rate.
    optimum: Point,
    /// Rate without the residual dispersion of the arms, the pump loop on: what loss alone would leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    skr_loss_only_bps: Option<f64>,
    /// Clicks per second of each detector of both ends: short, long, plus, minus.
    click_rate_hz: [[f64; 4]; 2],
    tags_hz: [f64; 2],
    record_bytes_per_s: f64,
    module_memory_bytes: [f64; 2],
    block_s: f64,
    bound: &'static str,
    tolerated_qber: f64,
    threshold_qber: f64,
    reconciliation_efficiency: f64,
    authentication_bits_per_block: f64,
    /// Shares of the key by the bound that the topology chooses.
    authentication_fraction: f64,
    verification_fraction: f64,
    /// Warnings about this link.
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Point {
    pump: f64,
    pair_rate_hz: f64,
    sifted_z_hz: f64,
    sifted_x_hz: f64,
    accidental_z_hz: f64,
    qber_z: f64,
    qber_x: f64,
    /// Key rate by the bound that the topology chooses: 0 where every block aborts.
    skr_bps: f64,
    skr_asymptotic_bps: f64,
    skr_finite_bps: f64,
    figures: Figures,
}

pub fn run(args: &PlanArgs) -> Result<(), Failure> {
    let topology = files::load(&args.file)?;
    let plan = topology::plan::plan(&topology, &topology::plan::RunOptions::default());
    let report = report(&plan, args);
    match args.output.output {
        Output::Json => print_json(&report),
        Output::Text => print(&text::render(&report)),
    }
}

fn report(plan: &Plan, args: &PlanArgs) -> Report {
    let efficiency = args.efficiency;
    let twin_fields = plan.twin_fields.iter().map(|link| twin_fields::report(link, efficiency));
    let links: Vec<LinkReport> = plan
        .links
        .iter()
        .filter_map(|link| link_report(plan, link, efficiency))
        .chain(twin_fields.map(|report| LinkReport::TwinField(Box::new(report))))
        .collect();
    let proposals = if args.optimise { proposals(plan, args) } else { Vec::new() };
    Report {
        topology: plan.topology.clone(),
        services: plan.services.len(),
        total_tags_hz: links.iter().flat_map(LinkReport::tags_hz).sum(),
        total_memory_bytes: links.iter().flat_map(LinkReport::module_memory_bytes).sum(),
        links,
        proposals,
        warnings: plan.warnings.clone(),
    }
}

/// The optimum of each link, for blocks of a stated length or of its rounds.
fn proposals(plan: &Plan, args: &PlanArgs) -> Vec<Proposal> {
    let of_link = |link: &PlannedLink| {
        let module = plan.modules().find(|module| module.link == link.name)?;
        let round_s = module.protocol.post_processing.framing.round_s();
        propose(plan, link, args.block.map_or(round_s, |block| block.value() * 1e-12), args.efficiency)
    };
    plan.links.iter().filter_map(of_link).collect()
}

fn link_report(plan: &Plan, link: &PlannedLink, efficiency: f64) -> Option<LinkReport> {
    if let Some(parts) = plan.prepared(link) {
        return pulses::report(plan, link, &parts, efficiency).map(|report| LinkReport::Pulses(Box::new(report)));
    }
    pairs_report(plan, link, efficiency).map(|report| LinkReport::Pairs(Box::new(report)))
}

/// `None` where the plan lacks a service that it names, which `topology` never does.
fn pairs_report(plan: &Plan, link: &PlannedLink, efficiency: f64) -> Option<PairsReport> {
    let parts = plan.entangled(link)?;
    let (protocol, inputs) = (parts.post_processing, parts.inputs());
    let key = KeyInputs { reconciliation_efficiency: efficiency, ..KeyInputs::of(protocol) };
    let best = optimum(&inputs, |expected| key.rate(expected).asymptotic_bps);
    let operating = parts.operating_point(&inputs);
    let p = &operating.prediction;
    let load = load(p, &parts.buffering(link));
    let key_bits = key.rate(p).by(protocol.security.bound) * key.block_s;
    let share = |bits: f64| if key_bits > 0.0 { bits / key_bits } else { f64::INFINITY };
    let budget = Budget::of(protocol, key_bits);
    let authentication_bits = budget.tag_bits;
    let frames = (p.z.sifted_hz * key.block_s / f64::from(protocol.reconciliation.frame_bits)).ceil();
    let arm_loss_db = [0, 1].map(|end| loss_db(inputs.transmission[end]));
    Some(PairsReport {
        name: link.name.clone(),
        source_site: link.source.site.clone(),
        sites: link.ends.each_ref().map(|end| end.site.clone()),
        arm_loss_db,
        total_loss_db: arm_loss_db[0] + arm_loss_db[1],
        peak_fwhm_ps: p.peak_fwhm_ps,
        window_ps: inputs.window_ps,
        skr_loss_only_bps: loss_only(&parts, &key),
        click_rate_hz: p.click_rate_hz,
        tags_hz: load.tags_hz,
        record_bytes_per_s: load.record_bytes_hz,
        module_memory_bytes: load.module_bytes,
        block_s: key.block_s,
        bound: protocol.security.bound.name(),
        tolerated_qber: protocol.security.tolerated_qber,
        threshold_qber: threshold_qber(efficiency),
        reconciliation_efficiency: efficiency,
        authentication_bits_per_block: authentication_bits,
        authentication_fraction: budget.share(),
        verification_fraction: share(frames * VERIFICATION_BITS).min(1.0),
        notes: notes(&operating, &parts, key_bits, authentication_bits),
        operating: with_budget(point(&operating, &inputs, &key), &budget),
        optimum: point(&best, &inputs, &key),
    })
}

fn loss_only(parts: &EntangledParts<'_>, key: &KeyInputs) -> Option<f64> {
    if parts.pairs.arms.iter().map(|arm| arm.dispersion_ps_per_nm).sum::<f64>().abs() < 1.0 {
        return None;
    }
    let mut source: Pairs = parts.pairs.clone();
    source.arms.iter_mut().for_each(|arm| arm.dispersion_ps_per_nm = 0.0);
    // The laser is not what limits a link that does not exist.
    source.emitter.pump_max = f64::INFINITY;
    let parts = EntangledParts { pairs: &source, ..*parts };
    let point = parts.operating_point(&parts.inputs());
    Some(key.rate(&point.prediction).asymptotic_bps)
}

fn with_budget(mut point: Point, budget: &Budget) -> Point {
    budget.tell(&mut point.figures);
    point
}

fn point(point: &OperatingPoint, inputs: &Bbm92Inputs, key: &KeyInputs) -> Point {
    let p = &point.prediction;
    let rate = key.rate(p);
    let chosen_bps = rate.by(key.security.bound);
    Point {
        pump: point.pump,
        pair_rate_hz: inputs.pair_rate_hz * point.pump,
        sifted_z_hz: p.z.sifted_hz,
        sifted_x_hz: p.x.sifted_hz,
        accidental_z_hz: p.z.accidental_hz,
        qber_z: p.z.qber,
        qber_x: p.x.qber,
        skr_bps: chosen_bps,
        skr_asymptotic_bps: rate.asymptotic_bps,
        skr_finite_bps: rate.finite_bps,
        figures: Figures::of([
            (Figure::SecretKeyRate, chosen_bps),
            (Figure::SecretKeyRateFinite, rate.finite_bps),
            (Figure::QberZ, p.z.qber),
            (Figure::QberX, p.x.qber),
            (Figure::SiftedRateZ, p.z.sifted_hz),
            (Figure::SiftedRateX, p.x.sifted_hz),
            (Figure::PeakWidth, p.peak_fwhm_ps),
            (Figure::Pump, point.pump),
        ]),
    }
}

/// What a person would want to know before starting this.
fn notes(
    operating: &OperatingPoint,
    parts: &EntangledParts<'_>,
    key_bits: f64,
    authentication_bits: f64,
) -> Vec<String> {
    let EntangledParts { post_processing, sifting, .. } = parts;
    let p = &operating.prediction;
    let mut notes = Vec::new();
    let tolerated = post_processing.security.tolerated_qber;
    if p.x.qber > tolerated {
        let (x, limit) = (100.0 * p.x.qber, 100.0 * tolerated);
        notes.push(format!("QBERx {x:.2} % is above the tolerated {limit:.2} %: every block will abort"));
    }
    if key_bits <= 0.0 {
        notes.push("no key is left by the bound that the topology chooses".to_owned());
    } else if authentication_bits > 0.01 * key_bits {
        let seconds = 100.0 * authentication_bits / key_bits * post_processing.framing.round_s();
        notes.push(format!("authentication takes more than 1 % of the key; rounds of {seconds:.0} s would not"));
    }
    if sifting.loops.pump && p.z.qber < sifting.loops.target_qber_z - 1e-4 {
        notes.push("the pump loop ends at the laser's limit".to_owned());
    }
    notes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
