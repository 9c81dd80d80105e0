//! Follows a network to its end: shows it, drains it when asked, and sums it up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use distill::ledger::{BlockLedger, Line};
use proto::detector::v1::module_event::Event as Happening;
use proto::detector::v1::{BlockStored, LinkState as WireState, ModuleEvent, ModuleStatus};
use proto::fault::v1::FaultState;
use proto::kms::v1::{GetStatusResponse, PoolStatus};
use tokio_util::sync::CancellationToken;
use topology::figure::Figure;
use topology::plan::{DetectorConfig, Plan};

use super::ends::{Ends, compare};
use super::events::gather;
use super::faults::Log;
use super::judge::{Stuck, lasting, lasting_pools, no_key, relay_put_back, stuck};
use super::network::{Announcement, Network};
use super::replay::Findings;
use super::rolled_back::Book;
use super::verdict::{Kind, Reason, Verdict};
use super::{End, Folders, Running, tags_end};
use crate::figures::Figures;
use crate::snapshot::{
    BlockFigures, Event, LinkRow, LinkState, LinkSummary, LoopState, Loops, PoolRow, Snapshot, StoreRow, Summary,
};
use crate::view::View;

/// Events kept for the screen.
const EVENTS_SHOWN: usize = 100;
const REDRAW: Duration = Duration::from_millis(200);
/// A run that is drained waits so long for links that have no session, and so no block under way either.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// Time that services get to end after the run has.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run was asked for, as far as it is shown.
pub struct Asked {
    pub seed: Option<u64>,
    pub target_s: Option<f64>,
    /// More was asked for than time tags hold.
    pub beyond_tags: bool,
    /// Of the recordings that take the place of light.
    pub replay: Option<Findings>,
}

/// What a run measured, for the summary and for comparison with publications.
pub struct Report {
    pub summary: Summary,
    pub links: Vec<LinkReport>,
}

/// One link's measurements with their statistics.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    pub name: String,
    /// Sums of the corrector's end.
    pub status: ModuleStatus,
    /// Key bits of each stored block.
    pub block_bits: Vec<f64>,
    pub peak_fwhm_ps: Vec<f64>,
    pub residual_ps: Vec<f64>,
    /// The peer's clock was found at least once.
    pub locked: bool,
    /// Why the last block that gave no key did not.
    pub last_abort: Option<String>,
}

impl LinkReport {
    /// Enters what the corrector's end tells.
    pub fn take(&mut self, event: &ModuleEvent) {
        match &event.event {
            Some(Happening::Block(block)) => self.block_bits.push(block.key_bits as f64),
            Some(Happening::Status(status)) if status.state() == WireState::Locked => {
                self.peak_fwhm_ps.push(status.peak_fwhm_ps);
                self.residual_ps.push(status.clock_residual_ps.abs());
            }
            Some(Happening::Note(note)) if note.name == "locked" => self.locked = true,
            Some(Happening::Note(note)) if note.name == "block-aborted" => self.last_abort = Some(note.message.clone()),
            _ => {}
        }
    }
}

/// Follows `running` until every node has ended or the user insists.
pub async fn watch(
    mut running: Running,
    plan: &Plan,
    folders: &Folders,
    asked: &Asked,
    view: &mut View,
    mut enough: impl FnMut(&[LinkReport]) -> bool,
) -> Result<Report> {
    let started = Instant::now();
    let no_more = CancellationToken::new();
    let mut events = gather(running.ends.iter().map(|end| end.monitor.watch()), &no_more);
    let mut follower = Follower::new(plan, asked, started);
    let mut redraw = tokio::time::interval(REDRAW);
    let mut announcement = Announcement::new(folders);
    let (mut verdict, mut busy) = (Verdict::default(), started);
    if let Some(why) = running.held.unanchored.take() {
        let what = "a data directory that is put back from a copy will not always be noticed";
        follower.say("unanchored", &format!("{what}: {why}"), view);
    }
    while !running.nodes.is_empty() {
        tokio::select! {
            Some((end, event)) = events.recv() => follower.take(&running.ends[end], event, view),
            Some(state) = running.faults.recv() => follower.suffer(state, view),
            _ = redraw.tick() => {
                follower.look(&running, view);
                let snapshot = follower.refresh(&running);
                view.update(snapshot);
                if !running.stores.is_empty() {
                    let network = Network::of(plan, folders, &running.stores, snapshot)?;
                    announcement.say(network.controlled_by(running.roster.clone()));
                }
                // Nobody can help such a link while it runs; a run that is to end by itself does.
                let for_good = stuck(&running.ends) == Stuck::ForGood;
                let hopeless = for_good && asked.target_s.is_some();
                let draining = running.drain.is_cancelled();
                if !draining && (view.is_closed() || hopeless || enough(&follower.links)) {
                    running.drain.cancel();
                }
                if running.ends.iter().any(under_way) || !draining {
                    busy = Instant::now();
                } else if !running.stop.is_cancelled() && (for_good || busy.elapsed() > DRAIN_PATIENCE) {
                    follower.say("drained", "the links that are left have no session", view);
                    running.stop.cancel();
                }
            }
            Some(ended) = running.others.join_next() => {
                if let Err(error) = ended.context("a service ended abnormally").and_then(|result| result) {
                    verdict.add(failed(&error));
                    running.stop.cancel();
                }
            }
            Some(ended) = running.nodes.join_next() => {
                if let Err(error) = ended.context("a service ended abnormally").and_then(|result| result) {
                    verdict.add(failed(&error));
                    running.stop.cancel();
                }
            }
            Some(()) = running.held.interrupts.recv() => {
                if running.drain.is_cancelled() {
                    verdict.add(Reason::new(Kind::CutShort, "the run was cut short: blocks under way are given up"));
                    running.stop.cancel();
                } else {
                    follower.say("draining", "finishing the blocks under way; interrupt again to cut short", view);
                }
                running.drain.cancel();
            }
        }
    }
    no_more.cancel();
    while let Some((end, event)) = events.recv().await {
        follower.take(&running.ends[end], event, view);
    }
    follower.look(&running, view);
    follower.refresh(&running);
    running.drain.cancel();
    running.stop.cancel();
    let all_ended = async { while running.others.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!("some services did not end in time");
    }
    verdict.extend(announcement.trouble());
    if asked.beyond_tags && verdict.is_good() {
        verdict.extend(tags_end(plan, &folders.data)?);
    }
    Ok(follower.report(&running, folders, verdict, started.elapsed()))
}

fn failed(error: &anyhow::Error) -> Reason {
    let why = shell::chain(error).to_string();
    tracing::error!("{why}");
    Reason::new(Kind::ServiceFailed, why)
}

/// Whether an end may have a block under way.
fn under_way(end: &End) -> bool {
    matches!(end.monitor.state(), WireState::Acquiring | WireState::Locked)
}

/// Keeps what is shown and what will be summed up.
struct Follower<'p> {
    plan: &'p Plan,
    snapshot: Snapshot,
    started: Instant,
    links: Vec<LinkReport>,
    faults: Log,
    rolled_back: Book,
    findings: Option<&'p Findings>,
    /// Recordings that are not complete.
    unwritten: Vec<Reason>,
}

impl<'p> Follower<'p> {
    fn new(plan: &'p Plan, asked: &'p Asked, started: Instant) -> Self {
        let rows = plan.links.iter().map(|link| LinkRow {
            name: link.name.clone(),
            loss_db: link.total_loss_db,
            ..LinkRow::default()
        });
        let reports = plan.links.iter().map(|link| LinkReport { name: link.name.clone(), ..LinkReport::default() });
        Self {
            plan,
            snapshot: Snapshot {
                topology: plan.topology.clone(),
                seed: asked.seed,
                target_s: asked.target_s,
                links: rows.collect(),
                ..Snapshot::default()
            },
            started,
            links: reports.collect(),
            faults: Log::default(),
            rolled_back: Book::default(),
            findings: asked.replay.as_ref(),
            unwritten: Vec::new(),
        }
    }

    fn say(&mut self, name: &str, message: &str, view: &mut View) {
        self.show(
            Event {
                simulated_s: self.snapshot.simulated_s,
                name: name.into(),
                message: message.into(),
                ..Event::default()
            },
            view,
        );
    }

    /// A fault begins or ends somewhere.
    fn suffer(&mut self, state: FaultState, view: &mut View) {
        let event = self.faults.take(state);
        self.snapshot.faults = self.faults.rows();
        match event {
            // What goes by wall time has no simulated time of its own.
            Some(event) if event.simulated_s == 0.0 => {
                self.show(Event { simulated_s: self.snapshot.simulated_s, ..event }, view);
            }
            Some(event) => self.show(event, view),
            None => {}
        }
    }

    fn show(&mut self, event: Event, view: &mut View) {
        view.event(&event);
        if self.snapshot.events.len() >= EVENTS_SHOWN {
            self.snapshot.events.remove(0);
        }
        self.snapshot.events.push(event);
    }

    fn take(&mut self, end: &End, event: ModuleEvent, view: &mut View) {
        if end.corrects
            && let Some(report) = self.links.iter_mut().find(|report| report.name == end.link)
        {
            report.take(&event);
        }
        match event.event {
            // Said by `look`, once for all who notice it.
            Some(Happening::Note(note)) if note.name == "rolled-back" && end.monitor.status().rolled_back.is_some() => {
            }
            Some(Happening::Note(note)) => {
                let (link, site) = (end.link.clone(), end.site.clone());
                let simulated_s = event.simulated_s;
                if note.name == detector::RECORDING_FAILED {
                    let reason = Reason::of_link(Kind::SideOutput, &link, &note.message).at(&site);
                    self.unwritten.push(reason.hint("the link was not touched; record again where there is room"));
                }
                self.show(Event { simulated_s, link, site, name: note.name, message: note.message, block: None }, view);
            }
            Some(Happening::Block(block)) if end.corrects => {
                let message = format!(
                    "block {}: {} bits, QBERz {:.2} %, QBERx {:.2} %",
                    block.block,
                    block.key_bits,
                    100.0 * block.qber_z,
                    100.0 * block.qber_x
                );
                let (link, site) = (end.link.clone(), end.site.clone());
                let name = "block-stored".to_owned();
                let block = Some(figures(&block));
                self.show(Event { simulated_s: event.simulated_s, link, site, name, message, block }, view);
            }
            _ => {}
        }
    }

    /// Says which stores turn out to have been put back.
    fn look(&mut self, running: &Running, view: &mut View) {
        for row in self.rolled_back.look(&running.ends, &running.stores, &running.relays) {
            let name = "rolled-back".to_owned();
            let message = format!("{}, since {}: {}", row.store, row.since, row.message);
            let (simulated_s, site) = (self.snapshot.simulated_s, row.site);
            self.show(Event { simulated_s, site, name, message, ..Event::default() }, view);
        }
        self.snapshot.rolled_back = self.rolled_back.rows().to_vec();
    }

    /// Brings the snapshot up to date with the monitors.
    fn refresh(&mut self, running: &Running) -> &Snapshot {
        let (ends, stores) = (&running.ends, &running.stores);
        self.snapshot.wall_s = self.started.elapsed().as_secs_f64();
        self.snapshot.simulated_s = ends.iter().map(|end| end.monitor.status().simulated_s).fold(0.0, f64::max);
        for row in &mut self.snapshot.links {
            let of_link: Vec<&End> = ends.iter().filter(|end| end.link == row.name).collect();
            let both: Vec<ModuleStatus> = of_link.iter().map(|end| end.monitor.status()).collect();
            let Some(corrector) = of_link.iter().position(|end| end.corrects) else { continue };
            let config = self.plan.detectors().find(|d| d.link == row.name);
            fill(row, &both, &both[corrector], config);
            let report = self.links.iter_mut().find(|report| report.name == row.name);
            if let (Some(report), Some(status)) = (report, both.into_iter().nth(corrector)) {
                report.status = status;
            }
        }
        self.snapshot.stores = stores.iter().map(|store| store_row(&store.latest.borrow())).collect();
        &self.snapshot
    }

    fn report(self, running: &Running, folders: &Folders, mut verdict: Verdict, wall: Duration) -> Report {
        let ends = &running.ends;
        let links = self.links;
        let mut summaries = Vec::new();
        for (report, row) in links.iter().zip(&self.snapshot.links) {
            let held = compare(&report.name, self.plan, folders);
            verdict.extend(held.reason(&report.name));
            verdict.extend(ends.iter().filter(|end| end.link == report.name).filter_map(lasting));
            summaries.push(summarise(report, row, &held));
        }
        verdict.extend(running.stores.iter().flat_map(|store| lasting_pools(&store.latest.borrow())));
        verdict
            .extend(running.relays.iter().filter_map(|relay| relay.rolled_back.borrow().as_ref().map(relay_put_back)));
        verdict.extend(self.unwritten);
        verdict.extend(self.findings.and_then(|findings| findings.judge(&links)));
        if verdict.is_good() {
            verdict.extend(no_key(ends, &links));
        }
        let summary = Summary {
            simulated_s: self.snapshot.simulated_s,
            wall_s: wall.as_secs_f64(),
            seed: self.snapshot.seed,
            links: summaries,
            recordings: self.findings.map(|findings| findings.rows.clone()).unwrap_or_default(),
            verdict,
            rolled_back: self.snapshot.rolled_back,
        };
        Report { summary, links }
    }
}

fn store_row(status: &GetStatusResponse) -> StoreRow {
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

fn figures(block: &BlockStored) -> BlockFigures {
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

fn summarise(report: &LinkReport, row: &LinkRow, held: &Ends) -> LinkSummary {
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

fn fill(row: &mut LinkRow, both: &[ModuleStatus], corrector: &ModuleStatus, config: Option<&DetectorConfig>) {
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
    let loops = &config.protocol.loops;
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
