#![allow(clippy::unwrap_used)]

use anchor::{MemoryAnchor, Unanchored};

use super::format::{CHECK, HEADER, RECORD_HEADER, header};
use super::*;

struct Folder {
    folder: tempfile::TempDir,
    disk: Disk,
    anchor: Arc<dyn Anchor>,
}

impl Folder {
    fn new() -> Self {
        let folder =
            Self { folder: tempfile::tempdir().unwrap(), disk: Disk::fillable(), anchor: Arc::new(Unanchored) };
        std::fs::write(folder.secret(), new_secret(128 * 40).unwrap().as_slice()).unwrap();
        folder
    }

    fn anchored() -> (Self, Arc<MemoryAnchor>) {
        let anchor = Arc::new(MemoryAnchor::default());
        (Self { anchor: anchor.clone(), ..Self::new() }, anchor)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reserve")
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn open(&self) -> Result<FileReserve, OpenError> {
        self.open_as(Side::Initiator, 4)
    }

    fn open_as(&self, side: Side, tags: u64) -> Result<FileReserve, OpenError> {
        let places = Places::own(self.path(), self.secret());
        FileReserve::open(&places, side, Layout::new(tags), self.disk.clone(), self.anchor.clone())
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }
}

fn rekey(reserve: &mut FileReserve, secret: &[u8], generation: Option<u64>) -> Result<(), RekeyError> {
    let raise = reserve.before_rekey(secret, generation)?;
    raise.make().unwrap();
    reserve.rekey(secret, generation, &raise)?;
    raise.make_alone().unwrap();
    Ok(())
}

/// A file as older releases wrote it: a secret without a key of masks, and no identity.
fn older_file(secret: &[u8], offsets: Offsets) -> Vec<u8> {
    let mut bytes = header(Side::Initiator, Layout::new(4));
    bytes[7] = b'1';
    let check = digest(&bytes[..HEADER - CHECK]);
    bytes[HEADER - CHECK..].copy_from_slice(&check[..CHECK]);
    bytes.extend_from_slice(&record(1, secret));
    let (kind, body) = ReserveState::offsets_record(offsets);
    bytes.extend_from_slice(&record(kind, &body));
    bytes
}

fn key(byte: u8) -> Bits {
    Bits::from_bytes(&[byte; 33], 258)
}

#[test]
fn what_was_used_stays_used() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    reserve.verified(2).unwrap();
    reserve.append(5, &key(1)).unwrap();
    let (marks, remaining) = (reserve.marks(), reserve.remaining_send());
    let pad = *reserve.take_send(1).unwrap().expose();
    drop(reserve);
    let mut reserve = folder.open().unwrap();
    assert_eq!((reserve.next_send(), reserve.next_receive()), (2, 3));
    assert_eq!((reserve.marks(), reserve.remaining_send()), (marks, remaining - 1));
    assert!(matches!(reserve.take_send(1), Err(ReserveError::Used(1))));
    assert_ne!(*reserve.take_send(2).unwrap().expose(), pad);
}

#[test]
fn compaction_changes_nothing() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    for block in 0..40 {
        reserve.append(block, &key(block as u8)).unwrap();
    }
    reserve.take_send(7).unwrap();
    let bytes = reserve.state.file(Side::Initiator, Layout::new(4));
    let (state, torn) = ReserveState::replay(&folder.path(), &bytes).unwrap();
    assert_eq!(torn, None);
    assert_eq!(state.offsets, reserve.state.offsets);
    assert_eq!(state.cells.marks(), reserve.state.cells.marks());
    assert_eq!(state.secrets, reserve.state.secrets);
    assert_eq!((state.generation, state.instance), (reserve.state.generation, reserve.state.instance));
    assert!(state.mask_key.is_some() && state.mask_key == reserve.state.mask_key);
    for direction in [Direction::Forward, Direction::Backward] {
        assert!(state.cells.direction(direction).ct_eq(reserve.state.cells.direction(direction)));
    }
}

/// Whether the file has these 128 bits at any byte.
fn holds(folder: &Folder, cell: &[u8; 16]) -> bool {
    folder.bytes().windows(16).any(|bytes| bytes == cell)
}

#[test]
fn pads_that_are_used_are_erased_in_memory_at_once_and_on_the_disk_when_it_is_opened_again() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    let used: Vec<[u8; 16]> = (0..9).map(|tag| *reserve.take_send(tag).unwrap().expose()).collect();
    reserve.verified(6).unwrap();
    let cell = |reserve: &FileReserve, tag| {
        *reserve.state.cells.cell(Direction::Forward, reserve.layout.pad_cell(tag)).unwrap().expose()
    };
    assert!((0..9).all(|tag| cell(&reserve, tag) == [0; 16]), "in memory");
    assert!(used.iter().all(|cell| holds(&folder, cell)), "the file of the start has them");
    let unused = cell(&reserve, 9);
    drop(reserve);
    let mut reserve = folder.open().unwrap();
    assert!(!used.iter().any(|cell| holds(&folder, cell)));
    assert!(holds(&folder, &unused));
    // The first group of four tags is over in both directions.
    assert_eq!(reserve.state.cells.dropped_bits(), 5 * 128);
    assert_eq!((reserve.next_send(), reserve.next_receive()), (9, 7));
    assert_eq!(*reserve.take_send(9).unwrap().expose(), unused);
    let before = folder.bytes().len();
    drop(reserve);
    folder.open().unwrap();
    assert!(folder.bytes().len() < before);
}

#[test]
fn a_file_that_grows_is_rewritten_while_it_is_in_use_and_the_ends_go_on_alike() {
    let (ours, theirs) = (Folder::new(), Folder::new());
    std::fs::copy(ours.secret(), theirs.secret()).unwrap();
    let mut initiator = ours.open().unwrap();
    let mut responder = theirs.open_as(Side::Responder, 4).unwrap();
    let mut longest = 0;
    for block in 0..1500 {
        let pad = *initiator.take_send(block).unwrap().expose();
        assert_eq!(*responder.pad_to_verify(block).unwrap().expose(), pad);
        responder.verified(block).unwrap();
        responder.take_send(block).unwrap();
        initiator.verified(block).unwrap();
        let mut words = vec![block.wrapping_mul(0x9e37_79b9_7f4a_7c15); 5];
        words[0] ^= 1;
        let key = Bits::from_words(words, 2 * 160);
        initiator.append(block, &key).unwrap();
        responder.append(block, &key).unwrap();
        longest = longest.max(ours.bytes().len());
    }
    assert!(longest < 100 << 10, "{longest} bytes");
    assert!(initiator.state.cells.dropped_bits() > 1000 * 128, "memory has given space back, too");
    assert!(initiator.agrees_with(&responder) && responder.agrees_with(&initiator));
    drop(initiator);
    let initiator = ours.open().unwrap();
    assert_eq!((initiator.next_send(), initiator.next_receive()), (1500, 1500));
    assert!(initiator.agrees_with(&responder));
    responder.append(1500, &key(1)).unwrap();
    assert!(!initiator.agrees_with(&responder));
}

#[test]
fn a_torn_record_is_dropped_and_a_tag_is_skipped() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    let before = folder.bytes().len();
    reserve.take_send(1).unwrap();
    drop(reserve);
    let whole = folder.bytes();
    for cut in before + 1..whole.len() {
        std::fs::write(folder.path(), &whole[..cut]).unwrap();
        let mut reserve = folder.open().unwrap();
        assert_eq!((reserve.next_send(), reserve.next_receive()), (2, 0), "cut at {cut}");
        assert!(matches!(reserve.take_send(1), Err(ReserveError::Used(1))));
        drop(reserve);
        assert_eq!(folder.open().unwrap().next_send(), 2, "once dropped, it is not dropped again");
    }
}

#[test]
fn damage_is_found_and_said() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    for tag in 0..3 {
        reserve.take_send(tag).unwrap();
    }
    drop(reserve);
    let whole = folder.bytes();
    let last = whole.len() - (RECORD_HEADER + 16 + CHECK);
    for at in (0..last).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(folder.path(), &bytes).unwrap();
        match folder.open() {
            Ok(reserve) => panic!("damage at {at} was not found: {} tags used", reserve.next_send()),
            Err(OpenError::Damaged { .. } | OpenError::Other { .. }) => {}
            Err(other) => panic!("damage at {at}: {other}"),
        }
    }
    for short in [0, 5, HEADER - 1] {
        std::fs::write(folder.path(), &whole[..short]).unwrap();
        assert!(matches!(folder.open(), Err(OpenError::Damaged { .. })));
    }
}

#[test]
fn two_processes_cannot_share_a_reserve() {
    let folder = Folder::new();
    let first = folder.open().unwrap();
    assert!(matches!(folder.open(), Err(OpenError::Locked { .. })));
    drop(first);
    folder.open().unwrap();
}

#[test]
fn a_reserve_of_the_other_end_is_refused() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    let open = |side, tags| folder.open_as(side, tags).err();
    assert!(matches!(open(Side::Responder, 4), Some(OpenError::Other { .. })));
    assert!(matches!(open(Side::Initiator, 5), Some(OpenError::Other { .. })));
}

#[test]
fn a_missing_or_short_secret_is_said() {
    let folder = Folder::new();
    for short in [63, 95] {
        std::fs::write(folder.secret(), vec![1; short]).unwrap();
        assert!(matches!(folder.open(), Err(OpenError::Secret { bits, .. }) if bits == 8 * short as u64));
    }
    std::fs::remove_file(folder.secret()).unwrap();
    assert!(matches!(folder.open(), Err(OpenError::Lost { .. })));
}

#[test]
fn a_fresh_secret_starts_anew_and_counts_once() {
    let folder = Folder::new();
    let first = std::fs::read(folder.secret()).unwrap();
    let mut reserve = folder.open().unwrap();
    let before = reserve.generation();
    reserve.take_send(3).unwrap();
    assert!(matches!(rekey(&mut reserve, &first, None), Err(RekeyError::Repeated)));
    assert!(matches!(rekey(&mut reserve, &[7; 10], None), Err(RekeyError::Length { bits: 80 })));
    let fresh = new_secret(1280).unwrap();
    rekey(&mut reserve, &fresh, None).unwrap();
    let generation = reserve.generation();
    assert!(generation != before);
    assert_eq!(reserve.next_send(), 0);
    assert!(matches!(rekey(&mut reserve, &fresh, None), Err(RekeyError::Repeated)));
    reserve.take_send(0).unwrap();
    drop(reserve);
    let reserve = folder.open().unwrap();
    assert_eq!((reserve.generation(), reserve.next_send()), (generation, 1));
    assert!(matches!(reserve.before_rekey(&first, None), Err(RekeyError::Repeated)), "also an older one");
}

#[test]
fn a_secret_that_was_taken_is_erased_and_its_reserve_is_missed_when_it_is_lost() {
    let folder = Folder::new();
    let secret = std::fs::read(folder.secret()).unwrap();
    drop(folder.open().unwrap());
    assert!(!folder.secret().exists());
    std::fs::remove_file(folder.path()).unwrap();
    let lost = folder.open().err().unwrap();
    assert!(matches!(lost, OpenError::Lost { .. }) && lost.to_string().contains("`qkdnet rekey`"), "{lost}");
    // The same secret from somewhere does not help: its pads were used.
    std::fs::write(folder.secret(), &secret).unwrap();
    assert!(matches!(folder.open(), Err(OpenError::Lost { .. })));
    // A fresh one does, under the number that an end which is re-keyed with it gives it.
    let fresh = new_secret(1280).unwrap();
    std::fs::write(folder.secret(), &fresh).unwrap();
    let generation = folder.open().unwrap().generation();
    let other = Folder::new();
    let mut other = other.open().unwrap();
    rekey(&mut other, &fresh, None).unwrap();
    assert_eq!(other.generation(), generation);
}

#[test]
fn a_secret_is_erased_where_a_crash_or_an_older_release_left_it_and_a_fresh_one_is_not() {
    let folder = Folder::new();
    let secret = std::fs::read(folder.secret()).unwrap();
    drop(folder.open().unwrap());
    std::fs::write(folder.secret(), &secret).unwrap();
    drop(folder.open().unwrap());
    assert!(!folder.secret().exists());
    std::fs::write(folder.secret(), new_secret(1280).unwrap()).unwrap();
    drop(folder.open().unwrap());
    assert!(folder.secret().exists());
}

#[test]
fn an_older_file_is_taken_over_without_masks_and_a_fresh_secret_brings_them() {
    let folder = Folder::new();
    let secret = [9; 128];
    let offsets = Offsets { send: 2, receive: 1 };
    std::fs::write(folder.path(), older_file(&secret, offsets)).unwrap();
    std::fs::write(folder.secret(), secret).unwrap();
    let mut reserve = folder.open().unwrap();
    assert!(!folder.secret().exists(), "it was taken");
    assert_eq!((reserve.generation(), reserve.state.offsets), (1, offsets));
    assert!(reserve.mask_key().is_none());
    let instance = reserve.state.instance;
    rekey(&mut reserve, &new_secret(1280).unwrap(), None).unwrap();
    assert!(reserve.mask_key().is_some());
    drop(reserve);
    let again = folder.open().unwrap();
    assert_eq!(again.state.instance, instance, "the identity stays");
    assert!(again.mask_key().is_some());
}

#[test]
fn a_crash_costs_at_most_a_chunk_of_tags_and_a_clean_close_none() {
    let (folder, anchor) = Folder::anchored();
    let mut reserve = folder.open().unwrap();
    let store = reserve.state.instance.unwrap();
    for tag in 0..3 {
        reserve.take_send(tag).unwrap();
        reserve.verified(tag).unwrap();
    }
    let send = anchor.read(store).unwrap().unwrap()[&format!("send/{}", reserve.generation())];
    assert!((3..=3 + CHUNK).contains(&send), "{send}");
    drop(reserve);
    let mut reserve = folder.open().unwrap();
    assert_eq!((reserve.next_send(), reserve.next_receive()), (send, 3), "what lies below the ceiling was used");
    // Starting again and again costs no more.
    drop(reserve);
    reserve = folder.open().unwrap();
    assert_eq!(reserve.next_send(), send);
    reserve.take_send(send).unwrap();
    reserve.settlement().make().unwrap();
    drop(reserve);
    let reserve = folder.open().unwrap();
    assert_eq!((reserve.next_send(), reserve.rolled_back()), (send + 1, None));
}

#[test]
fn a_volume_that_was_put_back_is_known_by_its_anchor_and_stays_so_until_it_is_re_keyed() {
    for tags in [CHUNK + 1, 20] {
        let (folder, _) = Folder::anchored();
        let mut reserve = folder.open().unwrap();
        reserve.take_send(0).unwrap();
        let backup = folder.bytes();
        for tag in 1..=tags {
            reserve.take_send(tag).unwrap();
        }
        reserve.settlement().make().unwrap();
        drop(reserve);
        std::fs::write(folder.path(), &backup).unwrap();
        let reserve = folder.open().unwrap();
        let since = reserve.rolled_back().unwrap().clone();
        assert!(since.why.contains("ceilings"), "{since:?}");
        assert_eq!(reserve.next_send(), 1);
        drop(reserve);
        let mut reserve = folder.open().unwrap();
        assert_eq!(reserve.rolled_back(), Some(&since), "it is known since then");
        rekey(&mut reserve, &new_secret(1280).unwrap(), None).unwrap();
        drop(reserve);
        assert!(folder.open().unwrap().rolled_back().is_none());
        // The volume from before the re-keying is found too.
        std::fs::write(folder.path(), &backup).unwrap();
        assert!(folder.open().unwrap().rolled_back().is_some());
    }
}

#[test]
fn a_re_keying_that_a_crash_cuts_anywhere_rolls_nothing_back() {
    for step in 0..3 {
        let (folder, _) = Folder::anchored();
        let mut reserve = folder.open().unwrap();
        for tag in 0..6 {
            reserve.take_send(tag).unwrap();
        }
        let fresh = new_secret(1280).unwrap();
        let raise = reserve.before_rekey(&fresh, Some(3)).unwrap();
        raise.make().unwrap();
        if step > 0 {
            reserve.rekey(&fresh, Some(3), &raise).unwrap();
        }
        if step > 1 {
            raise.make_alone().unwrap();
        }
        drop(reserve);
        let reserve = folder.open().unwrap();
        assert_eq!((reserve.rolled_back(), reserve.generation() == 3), (None, step > 0), "step {step}");
    }
}

#[test]
fn an_anchor_that_does_not_answer_gives_no_pad() {
    #[derive(Debug)]
    struct Silent;
    impl Anchor for Silent {
        fn read(&self, _: Instance) -> Result<Option<anchor::Ceilings>, AnchorError> {
            Ok(None)
        }
        fn raise(&self, _: Instance, _: &anchor::Ceilings) -> Result<(), AnchorError> {
            Err(AnchorError::Unreachable("nobody".to_owned()))
        }
        fn settle(&self, _: Instance, _: &anchor::Ceilings) -> Result<(), AnchorError> {
            Ok(())
        }
    }
    let folder = Folder { anchor: Arc::new(Silent), ..Folder::new() };
    let mut reserve = folder.open().unwrap();
    assert!(reserve.take_send(0).is_err());
    assert!(matches!(reserve.take_send(0), Err(ReserveError::Used(0))), "it was on the disk as used");
}

#[test]
fn a_copy_of_a_reserve_that_was_given_up_is_one_that_was_rolled_back() {
    let (folder, anchor) = Folder::anchored();
    drop(folder.open().unwrap());
    for _ in 0..2 {
        FileReserve::give_up(&folder.path(), &*anchor).unwrap();
        assert!(folder.open().unwrap().rolled_back().unwrap().why.contains("another secret took its place"));
    }
}

#[test]
fn a_reserve_that_is_made_of_the_same_secret_once_more_does_not_start_over() {
    let (folder, _) = Folder::anchored();
    let secret = std::fs::read(folder.secret()).unwrap();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    let settlement = reserve.settlement();
    drop(reserve);
    settlement.make().unwrap();
    // The folder as it was when the secret had been placed.
    let placed = || {
        for entry in std::fs::read_dir(folder.path().parent().unwrap()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::fs::write(folder.secret(), &secret).unwrap();
    };
    placed();
    let mut reserve = folder.open().unwrap();
    assert_eq!(reserve.next_send(), 1);
    for tag in 1..20 {
        reserve.take_send(tag).unwrap();
    }
    drop(reserve);
    placed();
    assert!(folder.open().unwrap().rolled_back().is_some());
}

#[test]
fn a_cut_survives_a_restart() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    let marks = reserve.marks();
    reserve.append(0, &key(1)).unwrap();
    reserve.align(&marks).unwrap();
    assert_eq!(reserve.marks(), marks);
    reserve.append(1, &key(2)).unwrap();
    let after = reserve.marks();
    drop(reserve);
    assert_eq!(folder.open().unwrap().marks(), after);
}

#[test]
fn a_full_disk_closes_the_reserve_and_no_tag_of_it_comes_twice() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    folder.disk.fill(true);
    assert!(reserve.take_send(1).is_err(), "no pad leaves that is not on the disk as used");
    assert!(reserve.mend().is_err(), "there is still no room");
    assert!(reserve.take_send(1).is_err());
    folder.disk.fill(false);
    assert!(reserve.take_send(1).is_err(), "not before what was written in part is off the disk");
    assert!(reserve.mend().unwrap());
    assert_eq!((reserve.next_send(), reserve.next_receive()), (1, 0), "the peer counts no more than that either");
    reserve.take_send(1).unwrap();
    reserve.append(5, &key(1)).unwrap();
    assert!(!reserve.mend().unwrap(), "nothing to mend");
    let marks = reserve.marks();
    drop(reserve);
    let again = folder.open().unwrap();
    assert_eq!((again.next_send(), again.marks()), (2, marks));
}

#[test]
fn a_torn_refill_costs_no_tag() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    let before = folder.bytes().len();
    reserve.append(5, &key(1)).unwrap();
    drop(reserve);
    let whole = folder.bytes();
    for cut in before + RECORD_HEADER..whole.len() {
        std::fs::write(folder.path(), &whole[..cut]).unwrap();
        assert_eq!(folder.open().unwrap().next_send(), 1, "cut at {cut}");
    }
}

#[test]
fn ends_that_count_differently_agree_on_a_numbered_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, fresh) = (new_secret(4096).unwrap(), new_secret(4096).unwrap());
    let place = |name: &str, content: &[u8], generation| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let reserve = path.with_extension("reserve");
        Places { reserve, secret: path, generation: Some(generation), used: false, owned: false }
    };
    let (first, second) = (place("first", &secret, 0), place("second", &fresh, 77));
    let open = |places: &Places, side| {
        FileReserve::open(places, side, Layout::new(8), Disk::default(), Arc::new(Unanchored)).unwrap()
    };
    let mut kept = open(&first, Side::Initiator);
    rekey(&mut kept, &fresh, Some(77)).unwrap();
    assert!(matches!(rekey(&mut kept, &fresh, Some(78)), Err(RekeyError::Repeated)));
    assert!(matches!(rekey(&mut kept, &secret, Some(78)), Err(RekeyError::Repeated)), "an older one is remembered");
    drop(kept);
    // Also after a restart, and beside an end that begins with the fresh secret.
    let kept = open(&first, Side::Initiator);
    let lost = open(&second, Side::Responder);
    assert_eq!((kept.generation(), kept.next_send()), (77, 0));
    assert_eq!(kept.generation(), lost.generation());
    assert!(first.secret.exists(), "what others placed is theirs to erase");
    // One that they have emptied, or marked as taken, makes no reserve.
    drop(lost);
    std::fs::remove_file(&second.reserve).unwrap();
    let marked = Places { used: true, ..second.clone() };
    let refused = |places: &Places| {
        FileReserve::open(places, Side::Responder, Layout::new(8), Disk::default(), Arc::new(Unanchored)).err()
    };
    assert!(matches!(refused(&marked), Some(OpenError::Lost { .. })));
    std::fs::write(&second.secret, []).unwrap();
    assert!(matches!(refused(&second), Some(OpenError::Lost { .. })));
}
