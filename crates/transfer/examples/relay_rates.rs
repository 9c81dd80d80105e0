//! What a relay costs: CPU time per transfer carried, and per choice of paths in a network of 109 sites.

use std::time::Instant;

use transfer::{
    Graph, Header, Input, KmsAnswer, LinkReport, LinkState, Message, NeighbourState, Path, Payload, Relay, Settings,
    SiteName, TransferId,
};

const SITES: u32 = 109;
const LINKS: u32 = 700;

fn site(number: u32) -> SiteName {
    SiteName::parse(&format!("site-{number:03}")).unwrap_or_else(|_| unreachable!())
}

/// Every site linked to those some steps on: 109 sites, 13 neighbours each.
fn links() -> Vec<(u32, u32)> {
    let steps = [1, 2, 5, 11, 17, 29, 43];
    let all = (0..SITES).flat_map(|at| steps.map(|step| (at, (at + step) % SITES)));
    all.take(LINKS as usize).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn per_run_us(runs: u32, mut run: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    (0..runs).for_each(&mut run);
    start.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
}

fn state() -> NeighbourState {
    NeighbourState { connected: true, stored_bytes_out: 1 << 40, stored_bytes_in: 1 << 40, rate_bps: 1_000_000 }
}

fn carrying() -> f64 {
    let settings = Settings::default();
    let mut relay = Relay::new(site(1), settings);
    let mut ids = || [0; 16];
    for neighbour in [0, 2] {
        relay.handle(0, Input::Neighbour { site: site(neighbour), state: state() }, &mut ids);
    }
    let Ok(path) = Path::new(vec![site(0), site(1), site(2)]) else { unreachable!() };
    per_run_us(20_000, |run| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&run.to_le_bytes());
        let transfer = TransferId(id);
        let header = Header { transfer, group: transfer, share: 0, of: 1, bytes: 4096, path: path.clone(), hop: 1 };
        let now_ms = u64::from(run);
        let payload = Payload(vec![7; 4120]);
        let message = Message::Carry { header: header.clone(), payload: payload.clone() };
        let mut peer = |from: u32, message| relay.handle(now_ms, Input::Peer { from: site(from), message }, &mut ids);
        let mut actions = peer(0, message).len();
        actions += relay.handle(now_ms, Input::Kms(KmsAnswer::Sealed { transfer, payload }), &mut ids).len();
        actions +=
            relay.handle(now_ms, Input::Peer { from: site(0), message: Message::Settle { header } }, &mut ids).len();
        assert!(actions >= 6);
    })
}

fn choosing(count: usize) -> f64 {
    let mut relay = Relay::new(site(0), Settings::default());
    let mut ids = || [0; 16];
    let links = links();
    for (_, neighbour) in links.iter().filter(|(from, _)| *from == 0) {
        relay.handle(0, Input::Neighbour { site: site(*neighbour), state: state() }, &mut ids);
    }
    let near = links.iter().find(|(from, _)| *from == 0).map_or(1, |(_, to)| *to);
    for at in 1..SITES {
        let report = |to: u32| LinkReport { neighbour: site(to), stored_bytes: 1 << 20, rate_bps: 1_000_000, up: true };
        let links = links.iter().filter(|(from, _)| *from == at).map(|(_, to)| report(*to)).collect();
        let state = LinkState { site: site(at), incarnation: 1, seq: 1, links };
        relay.handle(0, Input::Peer { from: site(near), message: Message::LinkState(state) }, &mut ids);
    }
    per_run_us(200, |run| {
        let paths = relay.paths(0, &site(20 + run % 80), count, 4096);
        assert_eq!(paths.len(), count);
    })
}

fn searching(count: usize) -> f64 {
    let graph =
        Graph::new(links().into_iter().map(|(a, b)| (site(a), site(b), 1000 + u64::from(a * 7 + b * 13) % 997)));
    per_run_us(2000, |run| assert_eq!(graph.disjoint(&site(0), &site(20 + run % 80), count, 16).len(), count))
}

fn main() {
    println!("carry, reseal, settle at a site between  {:8.1} us", carrying());
    for count in [1, 2, 3] {
        println!(
            "{count} disjoint of {SITES} sites, {LINKS} links: search {:8.1} us, with the survey {:8.1} us",
            searching(count),
            choosing(count)
        );
    }
}
