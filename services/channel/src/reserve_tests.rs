#![allow(clippy::unwrap_used)]

use super::format::{CHECK, RECORD_HEADER};
use super::*;

struct Folder {
    folder: tempfile::TempDir,
    disk: Disk,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), new_secret(128 * 12).unwrap().as_slice()).unwrap();
        Self { folder, disk: Disk::fillable() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("reserve")
    }

    fn open(&self) -> Result<FileReserve, OpenError> {
        FileReserve::open(
            &self.path(),
            &self.folder.path().join("secret"),
            Side::Initiator,
            Layout::new(4),
            self.disk.clone(),
        )
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }
}

fn key(byte: u8) -> Bits {
    Bits::from_bytes(&[byte; 33], 258)
}

#[test]
fn what_was_used_stays_used() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(0).unwrap();
    reserve.take_receive(2).unwrap();
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
    let (state, torn) = State::replay(&folder.path(), &bytes).unwrap();
    assert_eq!(torn, None);
    assert_eq!(state.offsets, reserve.state.offsets);
    assert_eq!(state.cells.marks(), reserve.state.cells.marks());
    assert_eq!(state.secrets, reserve.state.secrets);
    for direction in [Direction::Forward, Direction::Backward] {
        assert!(state.cells.direction(direction).ct_eq(reserve.state.cells.direction(direction)));
    }
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
        assert_eq!((reserve.next_send(), reserve.next_receive()), (2, 1), "cut at {cut}");
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
    let open = |side, tags| {
        FileReserve::open(
            &folder.path(),
            &folder.folder.path().join("secret"),
            side,
            Layout::new(tags),
            Disk::default(),
        )
        .err()
    };
    assert!(matches!(open(Side::Responder, 4), Some(OpenError::Other { .. })));
    assert!(matches!(open(Side::Initiator, 5), Some(OpenError::Other { .. })));
}

#[test]
fn a_missing_or_short_secret_is_said() {
    let folder = Folder::new();
    let secret = folder.folder.path().join("secret");
    std::fs::write(&secret, [1; 63]).unwrap();
    assert!(matches!(folder.open(), Err(OpenError::Secret { bits: 504, .. })));
    std::fs::remove_file(&secret).unwrap();
    assert!(matches!(folder.open(), Err(OpenError::Io { .. })));
}

#[test]
fn a_fresh_secret_starts_anew_and_counts_once() {
    let folder = Folder::new();
    let mut reserve = folder.open().unwrap();
    reserve.take_send(3).unwrap();
    let first = std::fs::read(folder.folder.path().join("secret")).unwrap();
    assert!(matches!(reserve.rekey(&first), Err(RekeyError::Repeated)));
    assert!(matches!(reserve.rekey(&[7; 10]), Err(RekeyError::Length { bits: 80 })));
    let fresh = new_secret(1280).unwrap();
    reserve.rekey(&fresh).unwrap();
    assert_eq!((reserve.generation(), reserve.next_send()), (1, 0));
    assert!(matches!(reserve.rekey(&fresh), Err(RekeyError::Repeated)));
    reserve.take_send(0).unwrap();
    drop(reserve);
    let reserve = folder.open().unwrap();
    assert_eq!((reserve.generation(), reserve.next_send()), (1, 1));
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
    let place = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (first, second) = (place("first", &secret), place("second", &fresh));
    let layout = Layout::new(8);
    let path = folder.path().join("kept");
    let mut kept = FileReserve::open(&path, &first, Side::Initiator, layout, Disk::default()).unwrap();
    kept.rekey_as(&fresh, 77).unwrap();
    assert!(matches!(kept.rekey_as(&fresh, 78), Err(RekeyError::Repeated)));
    assert!(matches!(kept.rekey_as(&secret, 78), Err(RekeyError::Repeated)), "an older one is remembered");
    drop(kept);
    // Also after a restart, and beside an end that begins with the fresh secret.
    let kept = FileReserve::open(&path, &first, Side::Initiator, layout, Disk::default()).unwrap();
    let lost = folder.path().join("lost");
    let lost = FileReserve::open_as(&lost, &second, 77, Side::Responder, layout, Disk::default()).unwrap();
    assert_eq!((kept.generation(), kept.next_send()), (77, 0));
    assert_eq!(kept.generation(), lost.generation());
}
