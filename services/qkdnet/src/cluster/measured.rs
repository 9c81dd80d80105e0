//! What the links of a topology on a cluster measure, as their modules tell it to whoever watches.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use proto::detector::v1::detector_client::DetectorClient;
use proto::detector::v1::module_event::Event;
use proto::detector::v1::{GetStatusRequest, LinkState, WatchRequest};
use runner::roster::Roster;
use runner::watch::LinkReport;
use topology::plan::{Plan, PlannedLink};

use super::Cluster;

/// Watches the chosen links, or all, for so much simulated time or until they have ended.
pub async fn measured(cluster: &Cluster, links: &[String], duration_s: f64) -> Result<(Plan, Vec<LinkReport>)> {
    let control = cluster.control().await?;
    for name in links {
        let known: Vec<&str> = control.plan.links.iter().map(|link| link.name.as_str()).collect();
        ensure!(control.plan.link(name).is_some(), "there is no link `{name}`; links: {}", known.join(", "));
    }
    let chosen = control.plan.links.iter().filter(|link| links.is_empty() || links.contains(&link.name));
    let reports = try_join_all(chosen.map(|link| follow(&control.roster, link, duration_s))).await?;
    Ok((control.plan, reports))
}

/// What the end that knows the figures of the link tells.
async fn follow(roster: &Roster, link: &PlannedLink, duration_s: f64) -> Result<LinkReport> {
    let module = &link.ends[link.corrector()].module;
    let channel = roster.connector(module)?.connect().await?;
    let mut client = shell::limited!(DetectorClient::new(channel));
    let mut events = client.watch(WatchRequest {}).await?.into_inner();
    let mut status = client.get_status(GetStatusRequest {}).await?.into_inner();
    let until_s = status.simulated_s + duration_s;
    let mut report = LinkReport::of(link);
    while status.simulated_s < until_s && status.state() != LinkState::Ended {
        let event = events.message().await?.with_context(|| format!("{module} has nothing more to say"))?;
        report.take(&event);
        if let Some(Event::Status(latest)) = event.event {
            status = latest;
        }
    }
    report.status = status;
    Ok(report)
}
