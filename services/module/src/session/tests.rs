//! Two modules whose channel is here: it decides who hears what, and when.

use std::collections::VecDeque;
use std::path::Path;

use distill::bits::Bits;
use distill::config::{Framing, LinkProtocol, Loops, PostProcessing, Role, Sifting};
use distill::pipeline::Hello;
use distill::sifting::Light as Clicks;
use distill::sifting::counts::{Counts, Frame, Labelled};
use futures::future::BoxFuture;
use proto::channel::v1::{CloseReason, Closed, Delivered, Opened, Refilled, channel_message};
use proto::detector::v1::ModuleStatus;
use shell::Duplex;
use shell::disk::Disk;
use tokio::sync::mpsc;
use topology::plan::SecretSeed;

use super::*;
use crate::light::{Beginning, EpochLight};

const EPOCH_PS: u64 = 1_000_000_000_000;
const ROUND_FRAMES: u64 = 3;
const KEY_BITS: usize = 2000;
/// Epochs by which a frame ends later at the second end: its fibre is longer, its clock is another one.
const APART: u64 = 2;
const ROLES: [Role; 2] = [Role::Matcher, Role::Announcer];

type ChannelEnd = Duplex<ChannelMessage, ModuleMessage>;

fn config(end: usize) -> ModuleConfig {
    let mut protocol = LinkProtocol::bbm92(ROLES[end]);
    let PostProcessing { framing, .. } = &mut protocol.post_processing;
    *framing = Framing { frame_ps: EPOCH_PS, round_frames: ROUND_FRAMES };
    protocol.sifting = Sifting::Counts(Counts { side: ROLES[end].side(), loops: Loops::default() });
    let site = |end: usize| ["valrose", "sophia"][end].to_owned();
    ModuleConfig {
        name: format!("detector-link-{}", site(end)),
        link: "link".to_owned(),
        site: site(end),
        peer_site: site(1 - end),
        output: end as u32,
        epoch_ps: EPOCH_PS,
        latency_epochs: 8,
        epochs_limit: None,
        blocks_kept: 1000,
        protocol,
        initial_pump: 1.0,
        subseed: Some(SecretSeed::new([end as u8 + 1; 32])),
        source: "source-link".to_owned(),
        channel: format!("channel-link-{}", site(end)),
        kms: None,
        dark_when_full: false,
        faults_allowed: false,
        accepts: Vec::new(),
    }
}

/// The bits of a frame at one end, with 2 % of errors.
fn frame(number: u64, end: usize) -> FrameInput {
    let string = |len: usize, salt: u64| {
        let word =
            |i: u64| (number ^ salt ^ i << 32).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let mut bits = Bits::from_words((0..len.div_ceil(64) as u64).map(word).collect(), len);
        for place in (0..len).filter(|place| end == 0 && (place * 7 + number as usize).is_multiple_of(50)) {
            bits.set(place, !bits.get(place));
        }
        Labelled { bits, kinds: Vec::new() }
    };
    let (key, check) = (string(KEY_BITS, 5), string(KEY_BITS / 2, 6));
    let frame = Frame { key, check, clicks: (KEY_BITS + KEY_BITS / 2) as u64, ..Frame::default() };
    FrameInput { number, light: Clicks::Counts(Box::new(frame)), traceparent: String::new() }
}

/// Light without end.
struct Endless(usize);

impl Light for Endless {
    fn begin(&mut self, beginning: Beginning) -> BoxFuture<'_, Result<Begun>> {
        let (end, first_epoch) = (self.0, beginning.first_epoch);
        let (tx, epochs) = mpsc::channel(2);
        let later = APART * end as u64;
        tokio::spawn(async move {
            for epoch in first_epoch.. {
                let number = epoch.checked_sub(later).filter(|number| *number >= first_epoch);
                let frames = number.map(|number| frame(number, end)).into_iter().collect();
                let light = EpochLight { epoch, frames, outage: String::new(), end: false };
                if tx.send(Ok(light)).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(async move { Ok(Begun { first_epoch, epochs }) })
    }

    fn set(&mut self, _: u64, _: Setpoints, _: bool) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// The way of one end to the channel.
struct Way {
    end: usize,
    channel: mpsc::UnboundedSender<(usize, ChannelEnd)>,
}

impl Dial<ModuleMessage, ChannelMessage> for Way {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<ModuleMessage, ChannelMessage>>> {
        Box::pin(async {
            let (ours, theirs) = Duplex::pair(8);
            self.channel.send((self.end, theirs)).ok().context("the channel has gone")?;
            Ok(ours)
        })
    }
}

fn node(data: &Path, end: usize, channel: mpsc::UnboundedSender<(usize, ChannelEnd)>) -> Node {
    let config = config(end);
    Node {
        vault: Vault::open(data, None, &config.site, &config.link, Disk::default()).expect("open the vault"),
        monitor: Arc::new(Monitor::new(ModuleStatus::default())),
        light: Box::new(Endless(end)),
        channel: Arc::new(Way { end, channel }),
        delivery: None,
        light_over: false,
        faults: None,
        config,
    }
}

/// Both ends' streams, once each has greeted.
struct Meeting {
    streams: [ChannelEnd; 2],
    hellos: [Bytes; 2],
    /// What an end said beside what was waited for.
    kept: [VecDeque<Bundle>; 2],
}

async fn say(stream: &ChannelEnd, message: channel_message::Message) {
    // An end that has gone hears nothing.
    let _ = stream.send(ChannelMessage { message: Some(message) }).await;
}

/// The next thing that an end says but a refill, which is taken.
async fn hear(stream: &mut ChannelEnd) -> Option<module_message::Message> {
    loop {
        match stream.receive().await?.message? {
            module_message::Message::Refill(refill) => {
                say(stream, channel_message::Message::Refilled(Refilled { block: refill.block })).await;
            }
            other => return Some(other),
        }
    }
}

impl Meeting {
    async fn of(dialled: &mut mpsc::UnboundedReceiver<(usize, ChannelEnd)>) -> Self {
        let mut ends: [Option<(ChannelEnd, Bytes)>; 2] = [None, None];
        while ends.iter().any(Option::is_none) {
            let (end, mut stream) = dialled.recv().await.expect("two modules");
            // The last call of an end counts.
            if let Some(module_message::Message::Open(open)) = hear(&mut stream).await {
                ends[end] = Some((stream, open.hello));
            }
        }
        let [first, second] = ends.map(|end| end.expect("both"));
        let hellos = [first.1, second.1];
        Self { streams: [first.0, second.0], hellos, kept: Default::default() }
    }

    fn greetings(&self) -> [Hello; 2] {
        self.hellos.each_ref().map(|hello| Hello::decode_bytes(hello).expect("a greeting"))
    }

    async fn bundle(&mut self, end: usize) -> Bundle {
        if let Some(bundle) = self.kept[end].pop_front() {
            return bundle;
        }
        match hear(&mut self.streams[end]).await {
            Some(module_message::Message::Bundle(bundle)) => bundle,
            other => panic!("no bundle: {other:?}"),
        }
    }

    async fn deliver(&self, end: usize, bundle: Bundle) {
        let Bundle { step, payload, close_round } = bundle;
        let delivered = Delivered { step, payload, authenticated: close_round, reserve_tags: 1000 };
        say(&self.streams[end], channel_message::Message::Delivered(delivered)).await;
    }

    /// A session in which end `by` is told nonsense for this step. The other one takes a step more, or none, and then
    /// hears that its peer has gone.
    async fn end_by_contents(mut self, by: usize, ends_at: u64, one_more: bool) {
        for end in 0..2 {
            let opened = Opened { session: 7, peer_hello: self.hellos[1 - end].clone(), reserve_tags: 1000 };
            say(&self.streams[end], channel_message::Message::Opened(opened)).await;
        }
        let peer = 1 - by;
        for step in 0..=ends_at {
            let of_both = [self.bundle(0).await, self.bundle(1).await];
            assert!(of_both.iter().all(|bundle| bundle.step == step));
            let [of_first, of_second] = of_both;
            let (of_by, of_peer) = if by == 0 { (of_first, of_second) } else { (of_second, of_first) };
            if step < ends_at {
                self.deliver(by, of_peer).await;
                self.deliver(peer, of_by).await;
                continue;
            }
            self.deliver(by, Bundle { payload: Bytes::from_static(b"\xffnonsense"), ..of_peer }).await;
            if one_more {
                self.deliver(peer, of_by).await;
                let more = self.bundle(peer).await;
                assert_eq!(more.step, ends_at + 1);
            }
        }
        let mut closed = Closed::default();
        closed.set_reason(CloseReason::PeerLeft);
        say(&self.streams[peer], channel_message::Message::Closed(closed)).await;
    }
}

/// What both ends say when they meet again after a session that one of them ended by what it was given.
async fn greetings_after(by: usize, ends_at: u64, one_more: bool) -> [Hello; 2] {
    let data = tempfile::tempdir().expect("a folder");
    let (tx, mut dialled) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let running = [0, 1].map(|end| tokio::spawn(run(node(data.path(), end, tx.clone()), stop.clone())));
    Meeting::of(&mut dialled).await.end_by_contents(by, ends_at, one_more).await;
    let greetings = Meeting::of(&mut dialled).await.greetings();
    stop.cancel();
    for ended in running {
        ended.await.expect("no panic").expect("a module that is stopped");
    }
    greetings
}

/// Under a seed keys must not depend on how soon an end notices that the other one has ended the session.
#[tokio::test]
async fn an_end_that_ends_a_session_by_contents_begins_behind_all_that_its_peer_may_have_used() {
    let (mut epochs, mut blocks) = (false, false);
    for by in 0..2 {
        for ends_at in 1..36 {
            let soon = greetings_after(by, ends_at, false).await;
            let late = greetings_after(by, ends_at, true).await;
            let place = format!("end {by} at step {ends_at}");
            assert_eq!(soon[by], late[by], "{place}: what it heard does not depend on its peer");
            assert_eq!(soon[0].start(&soon[1]), late[0].start(&late[1]), "{place}: {soon:?}, then {late:?}");
            epochs |= late[1 - by].next_epoch > soon[1 - by].next_epoch;
            blocks |= late[1 - by].next_block > soon[1 - by].next_block;
        }
    }
    assert!(epochs && blocks, "one step more uses another epoch, and at times another block");
}
