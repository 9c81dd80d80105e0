//! What is shown and summed up of a network, by what its services tell.

use distill::config::{Entangled, Sifting};
use distill::ledger::{BlockLedger, Line};
use proto::detector::v1::{BlockStored, LinkState as WireState, ModuleStatus};
use proto::kms::v1::{GetStatusResponse, PoolStatus};
use topology::figure::Figure;
use topology::plan::DetectorConfig;

use super::ends::Ends;
use super::watch::LinkReport;
use crate::figures::Figures;
use crate::snapshot::{BlockFigures, LinkRow, LinkState, LinkSummary, LoopState, Loops, PoolRow, StoreRow};

pub fn store_row(status: &GetStatusResponse) -> StoreRow {
    let pool = |pool: &PoolStatus| PoolRow {
        peer: pool.site.clone(),
        relayed: !pool.adjacent,
        connected: pool.connected,
        rolled_back: pool.rolled_back.is_some(),
        peer_version: pool.peer_version.clone(),
        stored_bits: pool.unassigned_bits + pool.uses.iter().map(|counted| counted.left_bits).sum::<u64>(),
        confirmed_bits: pool.confirmed_bits,
    };
    StoreRow {
        site: status.site.clone(),
        pools: status.pools.iter().map(pool).collect(),
        keys_supplied: status.keys_supplied,
        keys_fetched: status.keys_fetched,
    }
}

pub fn figures(block: &BlockStored) -> BlockFigures {
    // Written by the module of the same version; one that is not understood has no figures to show.
    let ledger: BlockLedger = serde_json::from_str(&block.ledger).unwrap_or_default();
    BlockFigures {
        number: block.block,
        key_bits: block.key_bits,
        qber_z: block.qber_z,
        qber_x: block.qber_x,
        sifted_z: ledger.get(Line::SIFTED_KEY),
        errors_z: ledger.get(Line::KEY_ERRORS),
        sifted_x: ledger.get(Line::CHECK_DISCLOSED),
        errors_x: ledger.get(Line::CHECK_ERRORS),
        figures: Figures::of([(Figure::QberZ, block.qber_z), (Figure::QberX, block.qber_x)]),
    }
}

pub fn summarise(report: &LinkReport, row: &LinkRow, held: &Ends) -> LinkSummary {
    let status = &report.status;
    let mut residual = report.residual_ps.clone();
    residual.sort_by(f64::total_cmp);
    let p99 = residual.len().checked_sub(1).map(|last| residual[last * 99 / 100]);
    let (qber_z, qber_x) = (ratio(status.errors_z, status.sifted_z_bits), ratio(status.errors_x, status.sifted_x_bits));
    let counted = status.blocks + status.blocks_aborted > 0;
    let measured = |value: f64| counted.then_some(value);
    LinkSummary {
        name: report.name.clone(),
        ready: row.ready,
        figures: Figures::of([
            (Figure::SecretKeyRate, measured(status.skr_bps)),
            (Figure::SecretKeyRateFinite, measured(status.skr_finite_bps)),
            (Figure::AuthenticationShare, (status.blocks > 0).then_some(status.authentication_fraction)),
            (Figure::QberZ, (status.sifted_z_bits > 0).then_some(qber_z)),
            (Figure::QberX, (status.sifted_x_bits > 0).then_some(qber_x)),
            (Figure::PeakWidth, mean(&report.peak_fwhm_ps)),
        ]),
        skr_bps: status.skr_bps,
        skr_finite_bps: status.skr_finite_bps,
        qber_z,
        qber_x,
        blocks: status.blocks,
        blocks_voided: status.blocks_voided,
        blocks_aborted: status.blocks_aborted,
        key_bits: status.key_bits,
        authentication_fraction: status.authentication_fraction,
        clock_residual_p99_ps: p99,
        peak_fwhm_ps: mean(&report.peak_fwhm_ps),
        keys_equal: held.are_equal(),
        blocks_undecided: held.undecided(),
    }
}

pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub fn fill(row: &mut LinkRow, both: &[ModuleStatus], corrector: &ModuleStatus, config: Option<&DetectorConfig>) {
    row.state = both.iter().map(|status| state(status.state())).min_by_key(|s| *s as u8).unwrap_or_default();
    // The other end notices a lock only by the bits that come back.
    if corrector.state() == WireState::Locked {
        row.state = LinkState::Locked;
    }
    // Without authentication key nothing flows, whatever else goes on.
    for lasting in
        [WireState::ReservesDiffer, WireState::AuthenticationExhausted, WireState::PeerVersion, WireState::RolledBack]
    {
        if both.iter().any(|status| status.state() == lasting) {
            row.state = state(lasting);
        }
    }
    // What a run has come to when it ends stays in its summary.
    if row.state != LinkState::Ended {
        row.ready = row.state == LinkState::Locked && corrector.blocks > 0;
    }
    let locked = row.state == LinkState::Locked || row.state == LinkState::Ended;
    let measured = |value: f64| (locked && value > 0.0).then_some(value);
    row.sifted_z_hz = measured(corrector.sifted_z_rate_hz);
    row.sifted_x_hz = measured(corrector.sifted_x_rate_hz);
    row.qber_z = measured(corrector.qber_z);
    row.qber_x = measured(corrector.qber_x);
    row.visibility = row.qber_x.map(|_| corrector.visibility);
    row.clock_offset_ps = locked.then_some(corrector.clock_offset_ps);
    row.clock_residual_ps = locked.then_some(corrector.clock_residual_ps);
    row.peak_fwhm_ps = measured(corrector.peak_fwhm_ps);
    row.pump = corrector.pump;
    row.skr_bps = measured(corrector.skr_bps);
    row.skr_finite_bps = row.skr_bps.map(|_| corrector.skr_finite_bps);
    row.blocks = corrector.blocks;
    row.blocks_voided = corrector.blocks_voided;
    row.blocks_aborted = corrector.blocks_aborted;
    row.key_bits = corrector.key_bits;
    row.pool_bits = both.iter().map(|status| status.key_bits).min().unwrap_or(0);
    row.reserve_tags = both.iter().map(|status| status.reserve_tags).min().unwrap_or(0);
    row.figures = Figures::of([
        (Figure::SecretKeyRate, row.skr_bps),
        (Figure::SecretKeyRateFinite, row.skr_finite_bps),
        (Figure::QberZ, row.qber_z),
        (Figure::QberX, row.qber_x),
        (Figure::Visibility, row.visibility),
        (Figure::SiftedRateZ, row.sifted_z_hz),
        (Figure::SiftedRateX, row.sifted_x_hz),
        (Figure::PeakWidth, row.peak_fwhm_ps),
        (Figure::ClockOffset, row.clock_offset_ps),
        (Figure::ClockResidual, row.clock_residual_ps),
        (Figure::Pump, locked.then_some(row.pump)),
    ]);
    if let Some(config) = config {
        row.loops = loops(config, row);
    }
}

fn loops(config: &DetectorConfig, row: &LinkRow) -> Loops {
    let Sifting::Entangled(Entangled { loops, .. }) = &config.protocol.sifting;
    let acting = if row.ready { LoopState::Holding } else { LoopState::Seeking };
    let state = |on: bool| if on { acting } else { LoopState::Off };
    let pump = if loops.pump && row.pump >= loops.pump_max { LoopState::Limited } else { state(loops.pump) };
    Loops { polarisation: state(loops.polarisation), phase: state(loops.phase), pump }
}

fn state(wire: WireState) -> LinkState {
    match wire {
        WireState::Unspecified | WireState::Connecting => LinkState::Connecting,
        WireState::Acquiring => LinkState::Acquiring,
        WireState::Locked => LinkState::Locked,
        WireState::AuthenticationExhausted => LinkState::AuthenticationExhausted,
        WireState::RolledBack => LinkState::RolledBack,
        WireState::PeerVersion => LinkState::PeerVersion,
        WireState::ReservesDiffer => LinkState::ReservesDiffer,
        WireState::Ended => LinkState::Ended,
    }
}
