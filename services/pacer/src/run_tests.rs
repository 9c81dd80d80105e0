use proto::pace::v1 as wire;
use topology::plan::PacedSource;

use super::*;

const SKEW_PS: u64 = 1000;

/// A pacer of links `a` and `b`, and how to bring it streams.
struct World {
    streams: mpsc::Sender<(String, SourceStream)>,
    status: Arc<Status>,
    stop: CancellationToken,
}

impl World {
    fn start() -> Self {
        let source = |link: &str| PacedSource { service: format!("source-{link}"), link: link.to_owned() };
        let config = PacerConfig {
            name: "pacer".to_owned(),
            site: "site".to_owned(),
            sources: ["a", "b"].map(source).into(),
            skew_ps: SKEW_PS,
            faults_allowed: false,
            accepts: vec![],
        };
        let ((streams, incoming), status) = (mpsc::channel(2), Arc::new(Status::default()));
        let stop = CancellationToken::new();
        tokio::spawn(run(config, incoming, status.clone(), stop.clone()));
        Self { streams, status, stop }
    }

    async fn attach(&self, link: &str) -> Source {
        let (ours, theirs) = SourceStream::pair(crate::MESSAGES_IN_FLIGHT);
        self.streams.send((link.to_owned(), ours)).await.unwrap();
        Source(theirs)
    }

    fn state(&self, link: &str) -> PaceState {
        let links = self.status.figures().expect("a pacer that runs").links;
        links.iter().find(|row| row.link == link).expect("the link").state()
    }
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
