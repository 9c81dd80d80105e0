//! What lies on disks: a service that starts on damaged files says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use channel::{FileReserve, Places};
use distill::auth::{Layout, Reserve, Side};
use distill::bits::Bits;
use keystore::{KeyStore, MasterKey, Offer, SPAN_BYTES, Secret, Settings};
use module::store::{BlockStore, NewBlock};
use module::waiting::{self, Part, Waiting};
use shell::disk::Disk;

use crate::engine::{Target, verdict};

/// A folder for the files of one target.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn block_files_are_read_or_refused() {
    let place = folder();
    let file = place.path().join("blocks.qkd");
    let mut store = BlockStore::open(&file).unwrap();
    for number in 0..3 {
        let key = Bits::from_words(vec![0x1234_5678_9abc_def0; 3], 150);
        let block = NewBlock { number, session: 5, key: &key, ledger: "{}", trace_id: "ab" };
        store.prepare(&block).unwrap();
        if number < 2 {
            store.commit(number).unwrap();
        }
    }
    drop(store);
    let good = vec![std::fs::read(&file).unwrap(), block_file_of_release_0_1()];
    let blocks = |store: &BlockStore| store.all().filter_map(Result::ok).map(|block| block.number).collect::<Vec<_>>();
    let mut original_blocks = Vec::new();
    for whole in &good {
        std::fs::write(&file, whole).unwrap();
        original_blocks.extend(blocks(&BlockStore::open_read_only(&file).unwrap()));
    }
    Target::new("block files", good).fuzz(|input| {
        std::fs::write(&file, input).unwrap();
        let opened = BlockStore::open_read_only(&file);
        if let Ok(store) = &opened {
            // Damage is refused or cut off behind the last good record; what is read then is from before.
            let read = blocks(store);
            assert!(read.iter().all(|number| original_blocks.contains(number)), "a block from nowhere: {read:?}");
            let _ = store.digest();
        }
        verdict(&opened.map(|_| ()))
    });
}

/// From the folder that release 0.1 left behind.
fn block_file_of_release_0_1() -> Vec<u8> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/v0.1/data.tar.gz");
    let mut unpack = std::process::Command::new("tar");
    unpack.arg("-xzOf").arg(fixture).arg("data/calern/valrose-calern/blocks.qkd");
    let output = unpack.output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"QKDBLK\0\x01"));
    output.stdout
}

#[test]
fn key_that_waits_is_what_was_written_or_refused() {
    let place = folder();
    let file = place.path().join("blocks.qkd");
    let open = || {
        let store = BlockStore::open_on(&file, Disk::default())?;
        let seals = waiting::open_seals(place.path(), None, false)?;
        anyhow::Ok(Waiting::new(&file, Arc::new(Mutex::new(store)), seals))
    };
    let key = Bits::from_words(vec![0x1234_5678_9abc_def0; 9], 570);
    let waiting = open().unwrap();
    let sealed = waiting.seal(Part::Key, 3, 5, &key).unwrap();
    waiting.store().keep(sealed).unwrap().wait().unwrap();
    drop(waiting);
    let good = vec![std::fs::read(&file).unwrap()];
    Target::new("key that waits", good).fuzz(|input| {
        std::fs::write(&file, input).unwrap();
        let found = open().and_then(|waiting| waiting.get(Part::Key, 3));
        if let Ok(Some(found)) = &found {
            assert!(found.ct_eq(&key), "another key");
        }
        verdict(&found.map(|_| ()))
    });
}

#[test]
fn reserves_are_read_or_refused() {
    let place = folder();
    let places = Places::own(place.path().join("link.reserve"), place.path().join("link.secret"));
    let open = || {
        let (side, layout) = (Side::Initiator, Layout::new(4));
        FileReserve::open(&places, side, layout, Disk::default(), Arc::new(anchor::Unanchored))
    };
    std::fs::write(&places.secret, channel::new_secret(128 * 10).unwrap()).unwrap();
    let mut reserve = open().unwrap();
    for tag in 0..3 {
        reserve.take_send(tag).unwrap();
        reserve.verified(tag).unwrap();
    }
    reserve.append(0, &Bits::from_bytes(&[5; 40], 320)).unwrap();
    drop(reserve);
    let whole = std::fs::read(&places.reserve).unwrap();
    open().unwrap().roll_back("put back").unwrap();
    let good = vec![whole, std::fs::read(&places.reserve).unwrap()];
    Target { share: 3, ..Target::new("reserves", good) }.fuzz(|input| {
        std::fs::write(&places.reserve, input).unwrap();
        let opened = open();
        if let Ok(reserve) = &opened {
            // The file holds what was appended in order, or its beginning: never a tag that was not taken.
            assert!(reserve.next_send() <= 4 && reserve.next_receive() <= 3, "a count from nowhere");
        }
        verdict(&opened.map(|_| ()))
    });
}

#[test]
fn spans_deliveries_and_records_of_relays_are_read_or_passed_over() {
    let place = folder();
    let spans = place.path().join("kms.spans.jsonl");
    let data = place.path().join("data");
    let delivered = keystore::folder(&data, "a").join("relayed-keys.jsonl");
    std::fs::create_dir_all(delivered.parent().unwrap()).unwrap();
    let span = br#"{"trace":"t","span":"s","name":"qkd.kms.key","service":"kms-a","start_ns":1,"end_ns":2,"attributes":{"qkd.block.id":3,"qkd.key.fingerprint":"f"},"links":[{"trace":"t","span":"s"}]}"#;
    let key = br#"{"key_id":"id","master":"a","slave":"b","sites":["x","z"],"pieces":[{"bits":256,"path":["x","y","z"],"shares":1}]}"#;
    let incarnation = serde_json::to_vec(&transfer::Record::Incarnation(7)).unwrap();
    let mut good = vec![span.to_vec(), key.to_vec(), incarnation];
    good.iter_mut().take(2).for_each(|line| line.push(b'\n'));
    Target { words: &["{", "}", "[", "\"", "\\u0000", "1e999", "null", "\n"], ..Target::new("lines of files", good) }
        .fuzz(|input| {
            std::fs::write(&spans, input).unwrap();
            std::fs::write(&delivered, input).unwrap();
            let store = telemetry::store::Store::open([place.path()]).unwrap();
            let found = store.key("f").unwrap();
            for trace in found.iter().chain(&store.block(3, None).unwrap()) {
                telemetry::render::render(trace, Default::default());
            }
            let keys = kms::deliveries::read(&data, "a").map(|keys| keys.iter().map(|key| key.exposed_bits("y")).max());
            let record = serde_json::from_slice::<transfer::Record>(input);
            format!("{} {} {}", found.len(), verdict(&keys.map(|_| ())), verdict(&record.map(|_| ())))
        });
}

/// A key store with a block, and the names of its files.
fn key_store(place: &Path) -> Vec<PathBuf> {
    MasterKey::create(&place.join("master.key")).unwrap();
    let master = MasterKey::read(&place.join("master.key")).unwrap();
    let store = KeyStore::open(&place.join("store"), &master, &settings()).unwrap();
    let offer = Offer {
        id: [1; 16],
        key: Secret::new(vec![7; 9000]),
        origin: "{}".to_owned(),
        span: [0; SPAN_BYTES],
        offered_ms: 1,
        relayed: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.offer("b", offer).await.unwrap();
        store.confirm("b", [1; 16], 0, 0, 32).await.unwrap();
    });
    store.close().unwrap();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(place.join("store")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn settings() -> Settings {
    Settings { journal_bytes: 8 << 10, ..Settings::default() }
}

#[test]
fn a_damaged_key_store_is_refused_or_serves_what_it_served_before() {
    let place = folder();
    let files = key_store(place.path());
    let whole: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(files.len() >= 3, "{files:?}");
    let master = MasterKey::read(&place.path().join("master.key")).unwrap();
    // Each input says which bytes of which file are changed, and to what.
    let good = vec![vec![], vec![0, 10, 0, 0, 0xff], vec![1, 0, 0, 0, 0], vec![2, 9, 0, 0, 1, 1, 40, 0, 0, 2]];
    Target { share: 10, ..Target::new("key stores", good) }.fuzz(|input| {
        for (file, bytes) in files.iter().zip(&whole) {
            std::fs::write(file, bytes).unwrap();
        }
        for change in input.chunks_exact(5).take(16) {
            let file = usize::from(change[0]) % files.len();
            let mut bytes = std::fs::read(&files[file]).unwrap();
            let at = u32::from_le_bytes([change[1], change[2], change[3], 0]) as usize;
            match bytes.len() {
                0 => {}
                length if change[4] == 0xfe => bytes.truncate(at % length),
                length => bytes[at % length] ^= change[4],
            }
            std::fs::write(&files[file], bytes).unwrap();
        }
        let opened = KeyStore::open(&place.path().join("store"), &master, &settings());
        if let Ok(store) = &opened {
            // What it still says of a block is what was so.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let status = runtime.block_on(async { store.block_status("b", [1; 16]).await });
            if let Ok(status) = status {
                assert_eq!(status, keystore::BlockStatus::Confirmed { generation: 0, start: 0 });
            }
            if let Ok(ledger) = store.ledger("b") {
                ledger.check().unwrap();
            }
        }
        verdict(&opened.map(|_| ()))
    });
}
