//! What is shown and summed up of a network, by what its services tell.

use distill::config::{Entangled, Sifting};
use distill::sifting::counts::Counts;
use distill::sifting::prepared::config::Prepared;
use proto::detector::v1::{BlockStored, LinkState as WireState, ModuleStatus};
use proto::kms::v1::{GetStatusResponse, PoolStatus};
use shell::figures::{hear, of_module};
use topology::figure::{Figure, Measured};
use topology::plan::ModuleConfig;

use super::ends::Ends;
use super::watch::LinkReport;
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
        expired_bits: pool.uses.iter().map(|counted| counted.expired_bits).sum(),
        waiting_bits: pool.waiting_bits,
    };
    StoreRow {
        site: status.site.clone(),
        pools: status.pools.iter().map(pool).collect(),
        keys_supplied: status.keys_supplied,
        keys_fetched: status.keys_fetched,
    }
}

pub fn block_figures(block: &BlockStored) -> BlockFigures {
    BlockFigures { number: block.block, key_bits: block.key_bits, figures: hear(&block.figures) }
}

pub fn summarise(report: &LinkReport, row: &LinkRow, held: &Ends) -> LinkSummary {
    let status = &report.status;
    let mut residual = report.residual_ps.clone();
    residual.sort_by(f64::total_cmp);
    let p99 = residual.len().checked_sub(1).map(|last| residual[last * 99 / 100]);
    let mut figures = report.counted();
    for (figure, seconds) in &report.seconds {
        figures.set(*figure, mean(seconds).map(Measured::Value));
    }
    LinkSummary {
        name: report.name.clone(),
        fidelity: row.fidelity,
        ready: row.ready,
        figures,
        listing: report.listing,
        blocks: status.blocks,
        blocks_voided: status.blocks_voided,
        blocks_aborted: status.blocks_aborted,
        key_bits: status.key_bits,
        clock_residual_p99_ps: p99,
        keys_equal: held.are_equal(),
        blocks_undecided: held.undecided(),
    }
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

pub fn fill(row: &mut LinkRow, both: &[ModuleStatus], corrector: &ModuleStatus, config: Option<&ModuleConfig>) {
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
    row.figures = of_module(corrector);
    if !locked {
        row.figures.retain_set();
    }
    row.blocks = corrector.blocks;
    row.blocks_voided = corrector.blocks_voided;
    row.blocks_aborted = corrector.blocks_aborted;
    row.key_bits = corrector.key_bits;
    row.pool_bits = both.iter().map(|status| status.key_bits).min().unwrap_or(0);
    row.reserve_tags = both.iter().map(|status| status.reserve_tags).min().unwrap_or(0);
    if let Some(config) = config {
        row.loops = loops(config, row);
    }
}

fn loops(config: &ModuleConfig, row: &LinkRow) -> Loops {
    let acting = if row.ready { LoopState::Holding } else { LoopState::Seeking };
    let state = |on: bool| if on { acting } else { LoopState::Off };
    let loops = match &config.protocol.sifting {
        Sifting::Entangled(Entangled { loops, .. }) => loops,
        Sifting::Prepared(Prepared { loops, .. }) => {
            let (polarisation, phase) = (state(loops.polarisation), state(loops.phase));
            return Loops { polarisation, phase, pump: LoopState::Off };
        }
        // The means of what is drawn as counts are those that loops keep; the pump's follows what is measured.
        Sifting::Counts(Counts { loops, .. }) => loops,
    };
    let at_limit = row.figures.value(Figure::Pump).is_some_and(|pump| pump >= loops.pump_max);
    let pump = if loops.pump && at_limit { LoopState::Limited } else { state(loops.pump) };
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
