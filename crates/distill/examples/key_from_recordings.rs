//! Distils key from the time tags of both ends of a link, as the example `record_two_ends` of `photonics` records them:
//! `key_from_recordings a.a1 b.a1`. The end with fewer clicks comes first.
//!
//! Both ends run here side by side, so nothing is authenticated: a link has a channel between them that does it.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;

use distill::config::{LinkProtocol, Role};
use distill::pipeline::{Action, FinishedBlock, FrameInput, Module, PeerInput, SessionStart, Setpoints};
use photonics::tagfile::{Format, FrameReader, TagReader};

/// One end: its clicks, its half of the protocol, and what the other end said to it last.
struct End {
    frames: FrameReader<BufReader<File>>,
    module: Module,
    heard: Option<PeerInput>,
    undecided: Option<FinishedBlock>,
    is_over: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [announcer, matcher] = files.as_slice() else { return Err("give two files of format a1".into()) };
    let mut ends = [end(announcer, Role::Announcer, 1)?, end(matcher, Role::Matcher, 2)?];
    while !ends.iter().all(|end| end.is_over) {
        let [first, second] = &mut ends;
        // Both take a step before either hears of it.
        let said = [step("announcer", first)?, step("matcher", second)?];
        let [by_first, by_second] = said;
        (first.heard, second.heard) = (by_second, by_first);
    }
    Ok(())
}

fn end(file: &str, role: Role, seed: u8) -> Result<End, Box<dyn Error>> {
    let protocol = LinkProtocol::bbm92(role);
    let tags = TagReader::new(BufReader::new(File::open(file)?), Format::A1)?;
    let frames = FrameReader::new(tags, protocol.post_processing.framing.frame_ps, vec![1, 2, 3, 4]);
    let start = SessionStart {
        first_block: 0,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: 25,
        setpoints: Setpoints::default(),
    };
    // A seed of its own at each end, and of the system, where the key shall be secret.
    let module = Module::new(&protocol, &start, [seed; 32]);
    Ok(End { frames, module, heard: None, undecided: None, is_over: false })
}

/// Takes the next frame and what was heard; gives what there is to say.
fn step(name: &str, end: &mut End) -> Result<Option<PeerInput>, Box<dyn Error>> {
    if end.is_over {
        return Ok(None);
    }
    let frame = end.frames.next_frame()?;
    let frame = frame.map(|frame| FrameInput::tags(frame.number, frame.tags, String::new()));
    let output = end.module.step(frame, end.heard.take())?;
    for action in output.actions {
        match action {
            Action::Prepare(block) => end.undecided = Some(block),
            Action::Store(block) => stored(name, &block),
            Action::Commit { .. } => end.undecided.take().iter().for_each(|block| stored(name, block)),
            Action::Abort { block, reason, .. } => println!("{name}: block {block} gives no key: {reason}"),
            Action::Note { name: note, message } => println!("{name}: {note}: {message}"),
            // Of blocks that outlast a session.
            Action::Keep { .. } | Action::Settle { .. } | Action::Spend { .. } => {}
            Action::Void { .. } | Action::Stage { .. } | Action::Trace { .. } => {}
        }
    }
    end.is_over = output.finished;
    Ok(Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round }))
}

/// Both ends print the same digest of a block.
fn stored(name: &str, block: &FinishedBlock) {
    let digest = ring::digest::digest(&ring::digest::SHA256, &block.key.to_bytes());
    let first: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{name}: block {}: {} bits, SHA-256 {first}…", block.number, block.key.len());
}
