//! Follows a network to its end: shows it, drains it when asked, and sums it up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proto::detector::v1::module_event::Event as Happening;
use proto::detector::v1::{LinkState as WireState, ModuleEvent, ModuleStatus};
use proto::fault::v1::FaultState;
use shell::figures;
use tokio_util::sync::CancellationToken;
use topology::figure::{Figure, Figures, Listing};
use topology::plan::{Plan, PlannedLink};

use super::drain::Drain;
use super::ends::compare;
use super::events::gather;
use super::faults::Log;
use super::judge::{Stuck, lasting, lasting_pools, no_key, relay_put_back, stuck};
use super::network::{Announcement, Network};
use super::replay::Findings;
use super::rolled_back::Book;
use super::rows::{block_figures, fill, store_row, summarise};
use super::verdict::{Kind, Reason, Verdict};
use super::{End, Folders, Running, tags_end};
use crate::snapshot::{Event, LinkRow, Snapshot, Summary};

/// Events kept for the screen.
const EVENTS_SHOWN: usize = 100;
const REDRAW: Duration = Duration::from_millis(200);
/// Time that services get to end after the run has.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whom a run is shown to.
pub trait Audience {
    /// How the network stands now; told several times a second.
    fn update(&mut self, snapshot: &Snapshot);

    /// What happened, at once.
    fn event(&mut self, event: &Event);

    /// Nobody looks any more, so that nobody waits for this run.
    fn is_closed(&self) -> bool;
}

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
    /// Which figures the link has.
    pub listing: &'static Listing,
    /// Of each second, those by whose mean a run is judged.
    pub seconds: BTreeMap<Figure, Vec<f64>>,
    pub residual_ps: Vec<f64>,
    /// The peer's clock was found at least once.
    pub locked: bool,
    /// Why the last block that gave no key did not.
    pub last_abort: Option<String>,
}

impl LinkReport {
    pub fn of(link: &PlannedLink) -> Self {
        Self { name: link.name.clone(), listing: link.listing(), ..Self::default() }
    }

    /// Figures over all blocks that counted.
    pub fn counted(&self) -> Figures {
        figures::hear(&self.status.counted)
    }

    /// Enters what the corrector's end tells.
    pub fn take(&mut self, event: &ModuleEvent) {
        match &event.event {
            Some(Happening::Block(block)) => self.block_bits.push(block.key_bits as f64),
            Some(Happening::Status(status)) if status.state() == WireState::Locked => {
                let figures = figures::hear(&status.figures);
                for figure in self.listing.averaged {
                    self.seconds.entry(*figure).or_default().extend(figures.value(*figure));
                }
                self.residual_ps.extend(figures.value(Figure::ClockResidual).map(f64::abs));
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
    view: &mut dyn Audience,
    mut enough: impl FnMut(&[LinkReport]) -> bool,
) -> Result<Report> {
    let started = Instant::now();
    let no_more = CancellationToken::new();
    let mut events = gather(running.ends.iter().map(|end| end.monitor.watch()), &no_more);
    let mut follower = Follower::new(plan, asked, started);
    let mut redraw = tokio::time::interval(REDRAW);
    let mut announcement = Announcement::new(folders);
    let (mut verdict, mut drain) = (Verdict::default(), Drain::new(started));
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
                match drain.look(Instant::now(), &running.ends, draining, for_good) {
                    Some(why) if !running.stop.is_cancelled() => {
                        follower.say("drained", why, view);
                        running.stop.cancel();
                    }
                    _ => {}
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
            fidelity: link.fidelity,
            loss_db: link.total_loss_db(),
            listing: link.listing(),
            ..LinkRow::default()
        });
        let reports = plan.links.iter().map(LinkReport::of);
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

    fn say(&mut self, name: &str, message: &str, view: &mut dyn Audience) {
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
    fn suffer(&mut self, state: FaultState, view: &mut dyn Audience) {
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

    fn show(&mut self, event: Event, view: &mut dyn Audience) {
        view.event(&event);
        if self.snapshot.events.len() >= EVENTS_SHOWN {
            self.snapshot.events.remove(0);
        }
        self.snapshot.events.push(event);
    }

    fn take(&mut self, end: &End, event: ModuleEvent, view: &mut dyn Audience) {
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
                if note.name == module::recording::FAILED {
                    let reason = Reason::of_link(Kind::SideOutput, &link, &note.message).at(&site);
                    self.unwritten.push(reason.hint("the link was not touched; record again where there is room"));
                }
                self.show(Event { simulated_s, link, site, name: note.name, message: note.message, block: None }, view);
            }
            Some(Happening::Block(block)) if end.corrects => {
                let block = block_figures(&block);
                let brief = self.plan.link(&end.link).map(PlannedLink::listing).unwrap_or_default().brief;
                let brief = brief.iter().map(|figure| format!(", {}", figure.sentence(block.figures.value(*figure))));
                let message = format!("block {}: {} bits{}", block.number, block.key_bits, brief.collect::<String>());
                let (link, site) = (end.link.clone(), end.site.clone());
                let name = "block-stored".to_owned();
                let block = Some(block);
                self.show(Event { simulated_s: event.simulated_s, link, site, name, message, block }, view);
            }
            _ => {}
        }
    }

    /// Says which stores turn out to have been put back.
    fn look(&mut self, running: &Running, view: &mut dyn Audience) {
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
            let config = self.plan.modules().find(|module| module.link == row.name);
            fill(row, &both, &both[corrector], config);
            let report = self.links.iter_mut().find(|report| report.name == row.name);
            if let (Some(report), Some(status)) = (report, both.into_iter().nth(corrector)) {
                report.status = status;
            }
        }
        let known = self.snapshot.network_time.take();
        self.snapshot.network_time = running.pacer.as_ref().map(|pacer| pacer.row(known.as_ref()));
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
            network_time: self.snapshot.network_time,
            links: summaries,
            recordings: self.findings.map(|findings| findings.rows.clone()).unwrap_or_default(),
            verdict,
            rolled_back: self.snapshot.rolled_back,
        };
        Report { summary, links }
    }
}
