use std::os::unix::fs::PermissionsExt;

use distill::bounds::{Evidence, KeyLength};
use distill::pipeline::{Material, Stretch};

use super::*;

const SITE: &str = "valrose";
const LINK: &str = "valrose-sophia";

fn bits(seed: u64, len: usize) -> Bits {
    let word = |i: u64| (seed * 1000 + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ seed;
    Bits::from_words((0..len.div_ceil(64) as u64).map(word).collect(), len)
}

fn block(number: u64) -> FinishedBlock {
    FinishedBlock {
        number,
        key: bits(number + 1, 2304),
        reserve_bits: 256,
        frames: 1,
        detected: distill::sifting::Detected::default(),
        ledger: BlockLedger::default(),
        length: KeyLength {
            asymptotic: 2304,
            finite: 0,
            chosen: 2304,
            phase_error_finite: 0.0,
            epsilon: 0.0,
            abort: None,
        },
    }
}

fn delivered(number: u64) -> Bits {
    block(number).key.slice(256, 2048)
}

fn open(data: &Path) -> Vault {
    Vault::open(data, None, SITE, LINK, Disk::default()).unwrap()
}

fn waits(vault: &Vault) -> Vec<(Part, u64)> {
    vault.waiting.store().parts().collect()
}

fn mark(vault: &Vault, next: u64) {
    std::fs::write(vault.directory().join("delivered.next"), format!("{next}\n")).unwrap();
}

/// Files below the folder in which some of the key is.
fn with_key(data: &Path, key: &Bits) -> Vec<PathBuf> {
    let bytes = key.to_bytes();
    let parts: Vec<&[u8]> = bytes.chunks_exact(16).collect();
    let (mut found, mut open) = (Vec::new(), vec![data.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if std::fs::read(&path).unwrap().windows(16).any(|bytes| parts.contains(&bytes)) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn key_on_the_disk_is_sealed_while_it_waits_and_gone_once_it_was_delivered() {
    let data = tempfile::tempdir().unwrap();
    let mut vault = open(data.path());
    for number in 0..3 {
        vault.prepare(&block(number), "").unwrap();
        assert_eq!(vault.reserve_slice(number).unwrap().unwrap(), block(number).key.slice(0, 256).to_bytes());
        vault.commit(number).unwrap();
        assert!(vault.reserve_slice(number).unwrap().is_none(), "the reserve has it");
        assert_eq!(with_key(data.path(), &block(number).key), Vec::<PathBuf>::new());
    }
    let (first, key) = vault.next_committed(0).unwrap().unwrap();
    assert!(first.number == 0 && key.ct_eq(&delivered(0)));
    // The mark of a delivery is on the disk, and a crash came before its key was erased.
    mark(&vault, 2);
    drop(vault);
    let vault = open(data.path());
    assert_eq!(waits(&vault), [(Part::Key, 2)]);
    let (last, key) = vault.next_committed(2).unwrap().unwrap();
    assert!(last.number == 2 && key.ct_eq(&delivered(2)));
    assert!(vault.waiting.store().get(0).unwrap().unwrap().is_key(&delivered(0)), "its digest stays");
    let mode = |name| std::fs::metadata(vault.directory().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("blocks.key"), mode("blocks.qkd"), mode(".")), (0o600, 0o600, 0o700));
}

#[test]
fn a_block_in_doubt_keeps_key_and_slice_over_a_restart_and_a_void_one_keeps_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut vault = open(data.path());
    vault.prepare(&block(0), "").unwrap();
    drop(vault);
    let mut vault = open(data.path());
    assert_eq!(vault.in_doubt(), Some(0));
    assert!(vault.reserve_slice(0).unwrap().is_some());
    vault.void(0).unwrap();
    assert_eq!(waits(&vault), []);
}

#[test]
fn what_a_crash_left_of_a_block_without_a_record_is_erased() {
    let data = tempfile::tempdir().unwrap();
    let vault = open(data.path());
    for (part, bits) in [(Part::Slice, bits(1, 256)), (Part::Key, bits(1, 2048))] {
        let sealed = vault.waiting.seal(part, 4, 1, &bits).unwrap();
        vault.waiting.store().keep(sealed).unwrap().wait().unwrap();
    }
    drop(vault);
    let vault = open(data.path());
    assert_eq!(waits(&vault), []);
}

#[test]
fn a_waiting_key_that_is_missing_or_another_blocks_is_refused_with_the_way_out() {
    let data = tempfile::tempdir().unwrap();
    let mut vault = open(data.path());
    for number in 0..2 {
        vault.prepare(&block(number), "").unwrap();
        vault.commit(number).unwrap();
    }
    vault.waiting.erase(Part::Key, 0).unwrap();
    let refused = format!("{:#}", vault.next_committed(0).unwrap_err());
    assert!(refused.contains("block 0 waits for the key store"), "{refused}");
    assert!(refused.contains("writing 1 to") && refused.contains("delivered.next"), "{refused}");
    mark(&vault, 1);
    drop(vault);
    assert_eq!(open(data.path()).next_committed(1).unwrap().unwrap().0.number, 1, "the way out leads on");
}

#[test]
fn a_folder_of_release_0_1_is_taken_over_and_none_of_its_key_stays_in_the_clear() {
    use crate::store::testing::old_file;
    let data = tempfile::tempdir().unwrap();
    let path = store::path(data.path(), SITE, LINK);
    let folder = path.parent().unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let keys: Vec<Bits> = (0..4).map(delivered).collect();
    std::fs::write(&path, old_file(&keys, 3)).unwrap();
    let slice = bits(77, 256);
    std::fs::write(folder.join("reserve.slice"), [&3u64.to_le_bytes()[..], &slice.to_bytes()].concat()).unwrap();
    std::fs::write(folder.join("delivered.next"), "2\n").unwrap();
    let digest = BlockStore::open_read_only(&path).unwrap().digest();
    for _ in 0..2 {
        let vault = open(data.path());
        assert_eq!(vault.waiting.store().digest(), digest);
        let (waits, key) = vault.next_committed(2).unwrap().unwrap();
        assert!(waits.number == 2 && key.ct_eq(&keys[2]), "it waits as before");
        assert_eq!(vault.in_doubt(), Some(3));
        assert_eq!(vault.reserve_slice(3).unwrap().unwrap(), slice.to_bytes());
        assert!(vault.waiting.get(Part::Key, 1).unwrap().is_none(), "it was delivered");
        for key in keys.iter().chain([&slice]) {
            assert_eq!(with_key(data.path(), key), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn what_was_counted_in_epochs_of_one_length_does_not_go_on_in_others() {
    let data = tempfile::tempdir().unwrap();
    // A release that did not say how long they were.
    let mut vault = open(data.path());
    vault.session_starts(1, 0, 10).unwrap();
    drop(vault);
    assert_eq!(epoch_ps(data.path(), SITE, LINK).unwrap(), None);
    open(data.path()).count_in(20_000_000_000).unwrap();
    let mut vault = open(data.path());
    vault.count_in(20_000_000_000).unwrap();
    assert_eq!(epoch_ps(data.path(), SITE, LINK).unwrap(), Some(20_000_000_000));
    let refused = vault.count_in(1_000_000_000_000).unwrap_err();
    let told = refused.downcast_ref::<OtherEpoch>().unwrap();
    assert_eq!(*told, OtherEpoch { before_ps: 20_000_000_000, asked_ps: 1_000_000_000_000 });
    assert!(refused.to_string().contains("epochs of 0.02 s") && refused.to_string().contains("of 1 s"), "{refused}");
}

#[test]
fn a_lease_is_as_many_epochs_as_make_seconds_and_never_a_few_alone() {
    for (epoch_ps, leased) in
        [(1_000_000_000, 250), (20_000_000_000, 250), (100_000_000_000, 50), (10_000_000_000_000, 16)]
    {
        let data = tempfile::tempdir().unwrap();
        let mut vault = open(data.path());
        vault.count_in(epoch_ps).unwrap();
        for epoch in 0..1000 {
            vault.lease(epoch).unwrap();
            let on_disk = next_epoch(data.path(), SITE, LINK).unwrap();
            assert!(on_disk > epoch && on_disk <= epoch + leased, "{epoch} of {on_disk}");
        }
    }
}

#[test]
fn epochs_are_leased_once_that_is_on_the_disk_and_not_before() {
    let data = tempfile::tempdir().unwrap();
    let disk = Disk::fillable();
    let mut vault = Vault::open(data.path(), None, SITE, LINK, disk.clone()).unwrap();
    disk.fill(true);
    assert!(vault.lease(5).is_err());
    assert!(vault.lease(5).is_err(), "no room is no lease, however often it is asked for");
    disk.fill(false);
    vault.mend().unwrap();
    vault.lease(5).unwrap();
    assert!(next_epoch(data.path(), SITE, LINK).unwrap() > 5, "a crash goes on behind what was used");
}

#[test]
fn what_was_kept_of_a_block_is_erased_where_the_end_was_put_back_from_a_copy() {
    let data = tempfile::tempdir().unwrap();
    let material = Material {
        frames: 3,
        key: bits(5, 700),
        decoys: None,
        evidence: Evidence::CheckBits { bits: 10, errors: 1 },
        detected: distill::sifting::Detected::default(),
        account: BlockLedger::default(),
    };
    let stretch = Stretch { rounds: 1, tag_pairs: 1, protocol: 7, digest: [1; 32], material };
    let mut vault = open(data.path());
    vault.stretches().keep(4, &stretch).unwrap();
    drop(vault);
    assert_eq!(open(data.path()).stretches().frames(), 3, "a start alone erases nothing");
    void_restored(data.path(), None, SITE, LINK, Arc::new(anchor::Unanchored)).unwrap();
    assert_eq!(open(data.path()).stretches().frames(), 0, "a block may have been made of them since");
}

fn count(vault: &Vault, what: Count, number: u64) {
    vault.waiting.store().count(what, number).unwrap().wait().unwrap();
}

#[test]
fn a_loss_of_power_that_took_the_key_of_the_last_block_takes_the_block_too() {
    for (decided, left) in [(false, false), (true, false), (true, true)] {
        let data = tempfile::tempdir().unwrap();
        let mut vault = open(data.path());
        vault.store(&block(0), "").unwrap();
        let before = std::fs::metadata(store::path(data.path(), SITE, LINK)).unwrap().len();
        if decided { vault.store(&block(1), "") } else { vault.prepare(&block(1), "") }.unwrap();
        if left {
            // Whatever is behind a sync is on the disk with all before it.
            count(&vault, Count::Departed, 2);
        }
        let sealed = vault.waiting.store().sealed(Part::Key, 1).unwrap().unwrap().content;
        drop(vault);
        let path = store::path(data.path(), SITE, LINK);
        let whole = std::fs::read(&path).unwrap();
        let at = whole.windows(sealed.len()).position(|bytes| bytes == sealed).unwrap();
        for torn in [0, sealed.len() / 2] {
            let mut bytes = whole.clone();
            bytes[at + torn..at + sealed.len()].fill(0);
            std::fs::write(&path, bytes).unwrap();
            let vault = open(data.path());
            assert_eq!(vault.next_block(), if left { 2 } else { 1 }, "{decided} {torn}");
            // Of a block that has left, key that is not there was erased: it was delivered, and those before it.
            if !left || torn > 0 {
                assert!(vault.next_committed(0).unwrap().unwrap().1.ct_eq(&delivered(0)));
            }
            drop(vault);
            assert!(left || std::fs::metadata(&path).unwrap().len() == before, "it is cut off");
        }
    }
}

#[test]
fn key_that_was_erased_counts_as_delivered_where_a_loss_of_power_took_the_mark() {
    let data = tempfile::tempdir().unwrap();
    let mut vault = open(data.path());
    for number in 0..3 {
        vault.store(&block(number), "").unwrap();
        vault.commit(number).unwrap();
    }
    count(&vault, Count::Departed, 3);
    vault.waiting.erase(Part::Key, 0).unwrap();
    vault.waiting.erase(Part::Key, 1).unwrap();
    drop(vault);
    assert_eq!(delivery::next_undelivered(data.path(), SITE, LINK).unwrap(), 2);
    let mut vault = open(data.path());
    assert_eq!(waits(&vault), [(Part::Key, 2)]);
    vault.void(9).unwrap_err();
    let at_rest = delivery::next_of(vault.directory(), &vault.waiting.store()).unwrap();
    assert_eq!(at_rest, 2, "a void block is none that was delivered");
}

#[test]
fn a_file_of_which_much_was_erased_is_rewritten_with_what_waits_and_what_is_counted() {
    let data = tempfile::tempdir().unwrap();
    let mut vault = open(data.path());
    let large = |number: u64| FinishedBlock { key: bits(number + 1, 8 << 20), ..block(number) };
    let path = store::path(data.path(), SITE, LINK);
    let mut longest = 0;
    for number in 0..40 {
        vault.store(&large(number), "").unwrap();
        vault.commit(number).unwrap();
        count(&vault, Count::Delivered, number);
        if number > 0 {
            vault.waiting.erase(Part::Key, number - 1).unwrap();
        }
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
    }
    assert!(longest < 20 << 20, "40 blocks of 1 MB and {longest} bytes at most");
    let digest = vault.waiting.store().digest();
    let leased = vault.leased;
    drop(vault);
    let vault = open(data.path());
    assert_eq!((vault.waiting.store().digest(), vault.leased), (digest, leased));
    let (last, key) = vault.next_committed(39).unwrap().unwrap();
    assert!(last.number == 39 && last.is_key(&key));
    assert_eq!(delivery::next_of(vault.directory(), &vault.waiting.store()).unwrap(), 39);
}

#[test]
fn a_folder_of_the_release_before_goes_on_with_its_marks_and_its_leases() {
    let data = tempfile::tempdir().unwrap();
    let vault = open(data.path());
    let folder = vault.directory().to_owned();
    drop(vault);
    let path = store::path(data.path(), SITE, LINK);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[7] = 2;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(folder.join("epoch.next"), "700\n").unwrap();
    std::fs::write(folder.join("delivered.next"), "5\n").unwrap();
    assert_eq!(next_epoch(data.path(), SITE, LINK).unwrap(), 700);
    let mut vault = open(data.path());
    assert_eq!((vault.next_epoch(), std::fs::read(&path).unwrap()[7]), (700, 4));
    vault.session_starts(1, 5, 700).unwrap();
    delivery::delivered_until(&vault.waiting, 6).unwrap();
    drop(vault);
    assert_eq!(delivery::next_undelivered(data.path(), SITE, LINK).unwrap(), 6);
    assert!(next_epoch(data.path(), SITE, LINK).unwrap() > 700);
}
