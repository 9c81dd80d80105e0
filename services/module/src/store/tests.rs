use std::os::unix::fs::PermissionsExt;

use sha2::{Digest as _, Sha256};

use super::testing::old_records;
use super::*;

/// A small generator, so that the tests need no crate and repeat exactly.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bits(&mut self, len: usize) -> Bits {
        Bits::from_words((0..len.div_ceil(64)).map(|_| self.next()).collect(), len)
    }
}

fn new<'a>(number: u64, key: &'a Bits) -> NewBlock<'a> {
    NewBlock { number, session: 7, key, ledger: "{\"delivered\":1}", trace_id: "00c0ffee" }
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path(), "valrose", "valrose-sophia");
    (directory, path)
}

#[test]
fn blocks_come_back_as_they_were_written() {
    let (_directory, path) = temporary();
    let mut random = Random(1);
    let keys: Vec<Bits> = [1usize, 63, 64, 65, 1000, 70_001].iter().map(|&len| random.bits(len)).collect();
    let mut store = BlockStore::open(&path).unwrap();
    for (number, key) in keys.iter().enumerate() {
        store.prepare(&new(number as u64, key)).unwrap();
        assert_eq!(store.in_doubt(), vec![number as u64]);
        store.commit(number as u64).unwrap();
    }
    drop(store);
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.torn_tail(), None);
    assert_eq!(store.last_committed(), Some(5));
    assert!(store.in_doubt().is_empty());
    for (block, key) in store.committed().zip(&keys) {
        let block = block.unwrap();
        assert!(block.is_key(key) && block.key_bits == key.len() as u64);
        assert_eq!(
            (block.session, block.ledger.as_str(), block.trace_id.as_str()),
            (7, "{\"delivered\":1}", "00c0ffee")
        );
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_digest_is_over_the_digests_of_committed_blocks_in_the_order_of_their_numbers() {
    let (_directory, path) = temporary();
    let mut random = Random(2);
    let (first, second, lost) = (random.bits(13), random.bits(77), random.bits(50));
    let mut store = BlockStore::open(&path).unwrap();
    store.store(&new(4, &second)).unwrap();
    store.prepare(&new(2, &first)).unwrap();
    store.prepare(&new(3, &lost)).unwrap();
    store.void(3).unwrap();
    store.commit(2).unwrap();
    let of = |key: &Bits| Sha256::digest([&(key.len() as u64).to_le_bytes()[..], &key.to_bytes()].concat());
    let both = [of(&first), of(&second)].concat();
    let digest = store.digest();
    assert_eq!(digest, KeyDigest { bits: 90, sha256: Sha256::digest(both).into() });
    assert_eq!(store.digest_of_first(1), KeyDigest { bits: 13, sha256: Sha256::digest(of(&first)).into() });
    assert_eq!(store.committed_totals(), (2, 90));
    assert_eq!(BlockStore::open_read_only(&path).unwrap().digest(), digest);
}

#[test]
fn keys_that_differ_in_length_alone_have_other_digests() {
    let digest = |bits| {
        let (_directory, path) = temporary();
        let mut store = BlockStore::open(&path).unwrap();
        store.store(&new(0, &Bits::zeros(bits))).unwrap();
        store.digest().sha256
    };
    assert_ne!(digest(13), digest(16));
}

#[test]
fn no_key_is_in_the_file() {
    let (_directory, path) = temporary();
    let key = Random(7).bits(4096);
    let mut store = BlockStore::open(&path).unwrap();
    store.prepare(&new(0, &key)).unwrap();
    store.commit(0).unwrap();
    let file = std::fs::read(&path).unwrap();
    assert!(key.to_bytes().chunks(8).all(|part| !file.windows(8).any(|bytes| bytes == part)));
}

#[test]
fn the_digest_of_nothing_is_that_of_no_bytes() {
    let (_directory, path) = temporary();
    let digest = BlockStore::open(&path).unwrap().digest();
    assert_eq!((digest.bits, digest.sha256), (0, <[u8; 32]>::from(Sha256::digest([]))));
}

#[test]
fn impossible_orders_are_refused_and_change_nothing() {
    let (_directory, path) = temporary();
    let key = Random(3).bits(10);
    let mut store = BlockStore::open(&path).unwrap();
    assert!(store.commit(0).is_err());
    assert!(store.void(0).is_err());
    store.prepare(&new(0, &key)).unwrap();
    assert!(store.prepare(&new(0, &key)).is_err());
    store.commit(0).unwrap();
    store.commit(0).unwrap();
    assert!(store.void(0).is_err());
    assert!(store.store(&new(0, &key)).is_err());
    store.prepare(&new(1, &key)).unwrap();
    store.void(1).unwrap();
    store.void(1).unwrap();
    assert!(store.commit(1).is_err());
    store.prepare(&new(1, &key)).unwrap();
    store.commit(1).unwrap();
    assert!(store.abort(&new(2, &key)).is_err());
    store.abort(&new(2, &Bits::default())).unwrap();
    drop(store);
    let store = BlockStore::open(&path).unwrap();
    assert_eq!(store.committed_totals(), (2, 20));
    assert_eq!(store.all().count(), 4);
    assert_eq!(store.state(2), Some(BlockState::Aborted));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let (_directory, path) = temporary();
    let store = BlockStore::open(&path).unwrap();
    assert!(matches!(BlockStore::open(&path), Err(StoreError::InUse { .. })));
    assert!(BlockStore::open_read_only(&path).is_ok());
    drop(store);
    assert!(BlockStore::open(&path).is_ok());
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let (directory, path) = temporary();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    for content in [&b"PK\x03\x04"[..], b"not a block file at all", b"QKDBLK\0\x05 of the future", b"x"] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(BlockStore::open(&path), Err(StoreError::Foreign { .. })), "{content:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    let absent = BlockStore::open_read_only(directory.path().join("nowhere"));
    assert!(matches!(absent, Err(StoreError::Io { .. })));
}

#[test]
fn damage_before_the_tail_is_refused_at_every_byte() {
    let (_directory, path) = temporary();
    let mut random = Random(4);
    let mut store = BlockStore::open(&path).unwrap();
    for number in 0..3 {
        store.prepare(&new(number, &random.bits(40))).unwrap();
        store.commit(number).unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << random.below(8);
        std::fs::write(&path, &bad).unwrap();
        assert!(BlockStore::open(&path).is_err(), "byte {at} of {}", good.len());
        assert_eq!(std::fs::read(&path).unwrap(), bad, "a refused file must stay as it is");
    }
}

#[test]
fn zeros_that_a_file_system_left_are_a_torn_tail() {
    let (_directory, path) = temporary();
    let key = Random(5).bits(1000);
    let mut store = BlockStore::open(&path).unwrap();
    store.store(&new(0, &key)).unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    for zeros in [1usize, 63, 64, 65, 5000] {
        let mut torn = good.clone();
        torn.resize(good.len() + zeros, 0);
        std::fs::write(&path, &torn).unwrap();
        let store = BlockStore::open(&path).unwrap();
        assert_eq!(store.torn_tail(), Some(TornTail { offset: good.len() as u64, bytes: zeros as u64 }));
        assert_eq!(store.last_committed(), Some(0));
        drop(store);
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
}

/// What the file must say: state and key of every block, and after which byte each operation was on the disk.
type Model = BTreeMap<u64, (BlockState, Bits)>;

fn random_operation(random: &mut Random, store: &mut BlockStore, model: &mut Model) {
    let number = random.below(6);
    let len = random.below(200) as usize;
    let key = random.bits(len);
    let free = !matches!(model.get(&number), Some((BlockState::Prepared | BlockState::Committed, _)));
    let prepared = matches!(model.get(&number), Some((BlockState::Prepared, _)));
    let (done, after) = match random.below(5) {
        0 => (store.prepare(&new(number, &key)).is_ok(), free.then_some((BlockState::Prepared, key))),
        1 => (store.store(&new(number, &key)).is_ok(), free.then_some((BlockState::Committed, key))),
        2 => (
            store.abort(&new(number, &Bits::default())).is_ok(),
            free.then_some((BlockState::Aborted, Bits::default())),
        ),
        choice => {
            let state = if choice == 3 { BlockState::Committed } else { BlockState::Voided };
            let result = if choice == 3 { store.commit(number) } else { store.void(number) };
            let key = model.get(&number).map(|(_, key)| key.clone()).unwrap_or_default();
            (result.is_ok() && prepared, prepared.then_some((state, key)))
        }
    };
    assert_eq!(done, after.is_some());
    if let Some(after) = after {
        model.insert(number, after);
    }
}

fn assert_agrees(store: &BlockStore, model: &Model, context: &str) {
    for number in 0..6 {
        assert_eq!(store.state(number), model.get(&number).map(|(state, _)| *state), "{context}: block {number}");
        if let Some((state, key)) = model.get(&number) {
            let block = store.get(number).unwrap().unwrap();
            assert_eq!(block.key_bits, key.len() as u64, "{context}: block {number}");
            assert!(*state == BlockState::Aborted || block.is_key(key), "{context}: key of block {number}");
        }
    }
    let in_doubt: Vec<u64> =
        model.iter().filter(|(_, (state, _))| *state == BlockState::Prepared).map(|(number, _)| *number).collect();
    assert_eq!(store.in_doubt(), in_doubt, "{context}");
}

#[test]
fn a_crash_at_any_byte_of_any_write_loses_only_what_was_not_acknowledged() {
    for seed in 0..12u64 {
        let (_directory, path) = temporary();
        let mut random = Random(100 + seed);
        let mut model = Model::new();
        let mut store = BlockStore::open(&path).unwrap();
        for step in 0..25 {
            let before = model.clone();
            let start = store.log.end();
            random_operation(&mut random, &mut store, &mut model);
            let end = store.log.end();
            drop(store);
            let whole = std::fs::read(&path).unwrap();
            assert_eq!(whole.len() as u64, end);
            // Every cut in the bytes of this write, or some of them where they are many.
            let stride = ((end - start) / 24).max(1);
            for cut in (start..end).step_by(stride as usize) {
                std::fs::write(&path, &whole[..cut as usize]).unwrap();
                let store = BlockStore::open(&path).unwrap();
                let context = format!("seed {seed}, step {step}, cut at {cut} of {start}..{end}");
                assert_agrees(&store, &before, &context);
                assert_eq!(store.torn_tail().is_some(), cut > start, "{context}");
            }
            std::fs::write(&path, &whole).unwrap();
            store = BlockStore::open(&path).unwrap();
            assert_agrees(&store, &model, &format!("seed {seed}, step {step}"));
        }
    }
}

#[test]
fn a_cut_in_the_magic_of_a_new_file_starts_over() {
    let (_directory, path) = temporary();
    drop(BlockStore::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut store = BlockStore::open(&path).unwrap();
        store.store(&new(0, &Random(6).bits(9))).unwrap();
        drop(store);
        assert_eq!(BlockStore::open(&path).unwrap().last_committed(), Some(0));
    }
}

#[test]
fn key_bits_are_not_in_debug_output() {
    let (_directory, path) = temporary();
    let mut store = BlockStore::open(&path).unwrap();
    let key = Bits::from_words(vec![u64::MAX; 4], 256);
    store.store(&new(0, &key)).unwrap();
    let text = format!("{store:?} {:?} {:?}", new(0, &key), store.get(0).unwrap());
    assert!(!text.contains("255"), "{text}");
    assert!(!text.contains("18446744073709551615"));
}

#[test]
fn a_full_disk_loses_no_block_that_was_acknowledged_and_the_file_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.qkd");
    let disk = shell::disk::Disk::fillable();
    let mut store = BlockStore::open_on(&path, disk.clone()).unwrap();
    let key = Bits::from_words(vec![7; 4], 256);
    let block = |number| NewBlock { number, session: 1, key: &key, ledger: "{}", trace_id: "" };
    store.store(&block(0)).unwrap();
    disk.fill(true);
    assert!(matches!(store.store(&block(1)), Err(StoreError::Io { .. })));
    assert!(matches!(store.store(&block(1)), Err(StoreError::Poisoned { .. })), "not a second try on top of it");
    disk.fill(false);
    assert!(matches!(store.store(&block(1)), Err(StoreError::Poisoned { .. })));
    assert!(store.mend().unwrap());
    assert!(!store.mend().unwrap(), "nothing is left to mend");
    assert_eq!(store.state(1), None, "of what was written in part nobody was told");
    store.store(&block(1)).unwrap();
    assert!(matches!(BlockStore::open(&path), Err(StoreError::InUse { .. })), "the file has stayed this process's");
    drop(store);
    let again = BlockStore::open(&path).unwrap();
    assert_eq!((again.committed_totals(), again.torn_tail()), ((2, 512), None));
}

#[test]
fn a_file_of_release_0_1_is_read_as_one_of_today_and_nothing_is_appended_to_it() {
    let (_directory, path) = temporary();
    let mut random = Random(8);
    let (key, lost, none) = (random.bits(301), random.bits(64), Bits::default());
    let records = [
        (Kind::Prepared, 0, &lost),
        (Kind::Voided, 0, &none),
        (Kind::Prepared, 0, &key),
        (Kind::Committed, 0, &none),
        (Kind::Aborted, 1, &none),
    ];
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, old_records(&records)).unwrap();
    let digest = BlockStore::open_read_only(&path).unwrap().digest();
    let mut store = BlockStore::open(&path).unwrap();
    assert!(matches!(store.store(&new(2, &key)), Err(StoreError::Old { .. })));
    let mut kept = Vec::new();
    let mut store = store
        .take_over(|block, bits| {
            assert!(block.is_key(bits));
            kept.push(block.number);
            Ok::<_, StoreError>(None)
        })
        .unwrap();
    assert_eq!(kept, [0], "of two blocks of one number the later one counts");
    assert!(matches!(BlockStore::open(&path), Err(StoreError::InUse { .. })), "the lock is on the new file");
    store.store(&new(2, &key)).unwrap();
    drop(store);
    let store = BlockStore::open(&path).unwrap();
    assert!(!store.is_old());
    assert_eq!(store.digest_of_first(1), digest);
    assert_eq!(store.all().map(|block| block.unwrap().number).collect::<Vec<_>>(), [0, 0, 1, 2]);
    assert_eq!(store.get(0).unwrap().unwrap().ledger, "{\"delivered\":1}");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1, "nothing of the old file is left beside it");
}

#[test]
fn a_crash_while_a_file_of_release_0_1_is_taken_over_leaves_what_can_be_finished() {
    let key = Random(9).bits(500);
    let old = old_records(&[(Kind::Stored, 0, &key)]);
    let (_directory, path) = temporary();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let second_name = path.with_extension("qkd.old");
    let finish = || {
        let store = BlockStore::open(&path).unwrap().take_over(|_, _| Ok::<_, StoreError>(None)).unwrap();
        assert!(store.get(0).unwrap().unwrap().is_key(&key));
        assert!(!second_name.exists());
        drop(store);
        std::fs::read(&path).unwrap()
    };
    // Before the new file has the name: a part of it is beside, and the old one may have its second name.
    std::fs::write(&path, &old).unwrap();
    std::fs::write(path.with_extension("qkd.new"), &old[..9]).unwrap();
    std::fs::hard_link(&path, &second_name).unwrap();
    let today = finish();
    // After it: the old one has its second name alone, and may be overwritten in part.
    for overwritten in [0, 100, old.len()] {
        let mut left = old.clone();
        left[..overwritten].fill(0);
        std::fs::write(&second_name, &left).unwrap();
        assert_eq!(finish(), today);
    }
}

/// Of a block with this many bits of key.
fn account(delivered: u64) -> String {
    let mut account = distill::ledger::BlockLedger::default();
    account.set(distill::ledger::Line::DELIVERED, delivered);
    serde_json::to_string(&account).unwrap()
}

/// A block with an account that sums, committed, voided or without key by its number.
fn lived(store: &mut BlockStore, number: u64, random: &mut Random) {
    let key = random.bits(40);
    let ledger = account(key.len() as u64);
    let block = NewBlock { number, session: 7, key: &key, ledger: &ledger, trace_id: "00c0ffee" };
    match number % 10 {
        3 => store.abort(&NewBlock { key: &Bits::default(), ledger: &account(0), ..block }).unwrap(),
        other => {
            store.prepare(&block).unwrap();
            if other == 4 { store.void(number).unwrap() } else { store.commit(number).unwrap() }
        }
    }
}

#[test]
fn of_old_blocks_digest_and_sums_are_kept_and_the_file_stays_small() {
    let (_directory, path) = temporary();
    let (_other, beside) = temporary();
    let (mut random, mut twin) = (Random(5), Random(5));
    let (mut store, mut all) = (BlockStore::open(&path).unwrap(), BlockStore::open(&beside).unwrap());
    let (mut retired, mut largest) = (0, 0);
    for number in 0..1500 {
        lived(&mut store, number, &mut random);
        lived(&mut all, number, &mut twin);
        retired += u64::from(store.retire(100).unwrap());
        largest = largest.max(store.entries.len());
    }
    assert!(retired > 3 && largest <= 100 + 256 + 1, "{retired} {largest}");
    let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(bytes(&path) < 56 * 1500 + 357 * 700 && bytes(&path) < bytes(&beside) / 2, "{}", bytes(&path));
    drop(store);
    let mut store = BlockStore::open(&path).unwrap();
    for reader in [&store, &BlockStore::open_read_only(&path).unwrap()] {
        assert_eq!(reader.digest(), all.digest());
        assert_eq!(reader.digest_of_first(77), all.digest_of_first(77));
        assert_eq!(reader.digests_from(123), all.digests_from(123));
        assert_eq!(reader.committed_totals(), all.committed_totals());
        assert_eq!((reader.next_number(), reader.last_committed()), (1500, all.last_committed()));
        let (rows, sum) = reader.given_up().unwrap();
        let mut total = sum.clone();
        reader.all().for_each(|block| {
            let block = block.unwrap();
            let mut account: distill::ledger::BlockLedger = serde_json::from_str(&block.ledger).unwrap();
            if block.state == BlockState::Voided {
                account.void();
            }
            total.add(&account);
        });
        assert_eq!(total.get(distill::ledger::Line::DELIVERED), all.committed_totals().1);
        assert!(rows.count() > 900);
    }
    // A key that still waits is delivered with what is known of its block.
    let (old, kept) = (store.get(12).unwrap().unwrap(), all.get(12).unwrap().unwrap());
    assert_eq!((old.session, old.key_bits, old.key_digest), (kept.session, kept.key_bits, kept.key_digest));
    assert_eq!((store.state(12), store.state(13)), (Some(BlockState::Committed), None));
    // Numbers of old blocks are not used again, and the file goes on.
    let key = random.bits(8);
    assert!(matches!(store.prepare(&new(13, &key)), Err(StoreError::Order { .. })));
    store.prepare(&new(1500, &key)).unwrap();
    assert_eq!(store.in_doubt(), [1500]);
}

#[test]
fn a_block_in_doubt_is_never_given_up() {
    let (_directory, path) = temporary();
    let mut random = Random(6);
    let mut store = BlockStore::open(&path).unwrap();
    let (key, ledger) = (random.bits(9), account(9));
    for number in 0..10 {
        lived(&mut store, number, &mut random);
    }
    store.prepare(&NewBlock { ledger: &ledger, ..new(10, &key) }).unwrap();
    for number in 11..500 {
        lived(&mut store, number, &mut random);
    }
    assert!(store.retire(100).unwrap());
    assert_eq!((store.in_doubt(), store.state(9)), (vec![10], Some(BlockState::Committed)));
    assert!(!store.retire(100).unwrap(), "nothing before it is left");
    store.commit(10).unwrap();
    assert!(store.retire(100).unwrap());
    assert_eq!(store.committed_totals().0, 400);
}
