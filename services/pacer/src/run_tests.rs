use proto::pace::v1 as wire;

use super::*;

const SKEW_PS: u64 = 1000;

/// A pacer of links `a` and `b`, and how to bring it streams.
struct World {
    streams: mpsc::Sender<(String, SourceStream)>,
    orders: mpsc::Sender<Order>,
    status: Arc<Status>,
    stop: CancellationToken,
}

impl World {
    fn start() -> Self {
        Self::of(false)
    }

    fn of(repeatable: bool) -> Self {
        let config = PacerConfig {
            name: "pacer".to_owned(),
            site: "site".to_owned(),
            sources: ["a", "b"].map(paced).into(),
            skew_ps: SKEW_PS,
            repeatable,
            faults_allowed: false,
            accepts: vec![],
        };
        let ((streams, incoming), status) = (mpsc::channel(2), Arc::new(Status::default()));
        let (orders, ordered) = mpsc::channel(1);
        let stop = CancellationToken::new();
        tokio::spawn(run(config, incoming, ordered, status.clone(), stop.clone()));
        Self { streams, orders, status, stop }
    }

    async fn order(&self, links: &[&str], skew_ps: u64) -> bool {
        let (taken, changed) = oneshot::channel();
        let sources = links.iter().copied().map(paced).collect();
        assert!(self.orders.send(Order { sources, skew_ps, taken }).await.is_ok(), "a pacer that runs");
        changed.await.unwrap()
    }

    async fn attach(&self, link: &str) -> Source {
        let (ours, theirs) = SourceStream::pair(crate::MESSAGES_IN_FLIGHT);
        self.streams.send((link.to_owned(), ours)).await.unwrap();
        Source(theirs)
    }

    async fn becomes(&self, link: &str, state: PaceState) {
        while self.status.figures().is_none() || self.state(link) != state {
            tokio::task::yield_now().await;
        }
    }

    fn state(&self, link: &str) -> PaceState {
        let links = self.status.figures().expect("a pacer that runs").links;
        links.iter().find(|row| row.link == link).expect("the link").state()
    }
}

fn paced(link: &str) -> PacedSource {
    PacedSource { service: format!("source-{link}"), link: link.to_owned() }
}

struct Source(shell::duplex::Duplex<wire::Report, wire::Grant>);

impl Source {
    async fn say(&self, what: report::Report) {
        self.0.send(wire::Report { report: Some(what) }).await.unwrap();
    }

    async fn join(&self, number: u64, at_ps: u64) {
        self.say(report::Report::Join(wire::Join { number, at_ps })).await;
    }

    async fn emitting(&self, number: u64, reached_ps: u64, wants_ps: u64) {
        self.say(report::Report::Emitting(wire::Emitting { number, reached_ps, wants_ps })).await;
    }

    async fn granted(&mut self) -> wire::Grant {
        self.0.receive().await.expect("a grant")
    }
}

#[tokio::test]
async fn sources_wait_for_each_other_and_one_that_has_gone_holds_nobody() {
    let world = World::start();
    let (mut a, mut b) = (world.attach("a").await, world.attach("b").await);
    a.join(1, 0).await;
    b.join(1, 40).await;
    assert_eq!((a.granted().await.start_ps, b.granted().await.start_ps), (0, 40));
    b.emitting(1, 1000, 1040).await;
    a.emitting(1, 50, 0).await;
    assert_eq!(b.granted().await.limit_ps, 1050);
    // Not even by a stream that breaks.
    b.emitting(1, 1040, 1080).await;
    drop(a);
    assert_eq!(b.granted().await.limit_ps, 2040);
    assert_eq!((world.state("a"), world.state("b")), (PaceState::Away, PaceState::Emitting));
}

#[tokio::test]
async fn a_source_that_says_what_cannot_be_is_sent_away_and_the_others_go_on() {
    let world = World::start();
    let (mut a, mut b) = (world.attach("a").await, world.attach("b").await);
    a.join(1, 0).await;
    b.join(1, 0).await;
    a.granted().await;
    b.granted().await;
    a.emitting(1, 5000, 0).await;
    assert_eq!(a.0.receive().await, None, "it was allowed 1000");
    b.emitting(1, 1000, 1100).await;
    assert_eq!(b.granted().await.limit_ps, 2000);
    // Nothing at all is no report either.
    b.0.send(wire::Report { report: None }).await.unwrap();
    assert_eq!(b.0.receive().await, None);
    // One that is of no link of this network has nobody that answers it.
    assert_eq!(world.attach("c").await.0.receive().await, None);
}

#[tokio::test]
async fn a_later_stream_of_a_source_takes_the_place_of_the_one_before() {
    let world = World::start();
    let (mut a, mut b) = (world.attach("a").await, world.attach("b").await);
    a.join(1, 0).await;
    b.join(1, 0).await;
    b.granted().await;
    a.granted().await;
    let mut again = world.attach("a").await;
    assert_eq!(a.0.receive().await, None);
    again.emitting(1, 500, 0).await;
    assert_eq!(again.granted().await.limit_ps, 1000, "the other one is at its beginning");
    // What the old one still says is nobody's word.
    let _ = a.0.send(wire::Report { report: Some(report::Report::Idle(wire::Idle::default())) }).await;
    b.emitting(1, 900, 0).await;
    assert_eq!(b.granted().await.limit_ps, 1500);
    world.stop.cancel();
    assert_eq!(b.0.receive().await, None);
    while world.status.figures().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn links_that_come_and_go_are_told_and_the_others_go_on() {
    let world = World::start();
    let (mut a, mut b) = (world.attach("a").await, world.attach("b").await);
    a.join(1, 0).await;
    b.join(1, 0).await;
    a.granted().await;
    b.granted().await;
    assert!(!world.order(&["a", "b"], SKEW_PS).await, "nothing new");
    assert!(world.order(&["c", "a"], SKEW_PS).await);
    assert_eq!(b.0.receive().await, None, "it is of the network no longer");
    a.emitting(1, 1000, 1100).await;
    assert_eq!(a.granted().await.limit_ps, 2000, "and holds nobody");
    let mut c = world.attach("c").await;
    c.join(1, 0).await;
    assert_eq!(c.granted().await.start_ps, 1000, "what comes begins where the network is");
    assert!(world.order(&["a", "c"], 3 * SKEW_PS).await);
    a.emitting(1, 2000, 2100).await;
    let granted = a.granted().await;
    assert_eq!((granted.limit_ps, granted.skew_ps), (4000, 3000));
    let links: Vec<String> = world.status.figures().unwrap().links.into_iter().map(|row| row.link).collect();
    assert_eq!(links, ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_never_comes_is_waited_for_once_and_is_named() {
    let world = World::start();
    let mut a = world.attach("a").await;
    a.join(1, 0).await;
    world.becomes("a", PaceState::Joining).await;
    assert_eq!(world.state("b"), PaceState::Expected);
    // Time passes where nobody has anything else to do.
    let begun = Instant::now();
    assert_eq!(a.granted().await.start_ps, 0);
    assert!(begun.elapsed() >= OPENING && begun.elapsed() < 2 * OPENING);
    assert_eq!(world.state("b"), PaceState::Missing);
    // Its source comes and goes without a session, and another session begins: nobody waits again.
    let b = world.attach("b").await;
    b.say(report::Report::Idle(wire::Idle::default())).await;
    drop(b);
    let begun = Instant::now();
    a.say(report::Report::Idle(wire::Idle { reached_ps: 500, ended: false })).await;
    a.join(2, 500).await;
    while a.granted().await.number != 2 {}
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(world.state("b"), PaceState::Missing);
}

#[tokio::test(start_paused = true)]
async fn in_a_run_that_is_to_be_repeated_a_link_that_stopped_is_waited_for_and_then_missing() {
    let world = World::of(true);
    let (mut a, mut b) = (world.attach("a").await, world.attach("b").await);
    a.join(1, 0).await;
    b.join(1, 0).await;
    a.granted().await;
    b.granted().await;
    b.say(report::Report::Idle(wire::Idle { reached_ps: 200, ended: false })).await;
    a.emitting(1, 1000, 1400).await;
    world.becomes("b", PaceState::Expected).await;
    // Until it begins again, where it wants to.
    b.join(2, 300).await;
    while b.granted().await.number != 2 {}
    b.emitting(2, 400, 0).await;
    while a.granted().await.limit_ps < 1400 {}
    drop(b);
    let begun = Instant::now();
    a.emitting(1, 1400, 1500).await;
    assert_eq!(a.granted().await.limit_ps, 2400);
    assert!(begun.elapsed() >= OPENING, "{:?}", begun.elapsed());
    assert_eq!(world.state("b"), PaceState::Missing);
}
