use keystore::MasterKey;
use shell::disk::Disk;

use super::*;

fn bits(seed: u64, len: usize) -> Bits {
    Bits::from_words(
        (0..len.div_ceil(64) as u64).map(|i| (seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect(),
        len,
    )
}

fn end(folder: &Path) -> PathBuf {
    let end = folder.join("valrose/valrose-sophia");
    files::create_private_folder(&end).unwrap();
    end
}

fn open_with(end: &Path, placed: Option<&Path>) -> Result<Waiting> {
    let path = end.join(crate::store::FILE_NAME);
    let mut store = BlockStore::open_on(&path, Disk::default())?;
    let needed = has_folder(end)? || store.parts().next().is_some();
    let seals = open_seals(end, placed, needed)?;
    take_over_folder(end, &mut store)?;
    Ok(Waiting::new(&path, Arc::new(Mutex::new(store)), seals))
}

fn open(end: &Path) -> Waiting {
    open_with(end, None).unwrap()
}

fn put(waiting: &Waiting, part: Part, block: u64, key: &Bits) {
    let sealed = waiting.seal(part, block, 9, key).unwrap();
    waiting.store().keep(sealed).unwrap().wait().unwrap();
}

fn file(waiting: &Waiting) -> Vec<u8> {
    fs::read(&waiting.path).unwrap()
}

fn has(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.windows(16).any(|part| bytes.windows(16).any(|bytes| bytes == part))
}

#[test]
fn what_waits_is_sealed_and_comes_back_until_it_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let end = end(folder.path());
    let (key, slice) = (bits(1, 1003), bits(2, 256));
    let waiting = open(&end);
    put(&waiting, Part::Key, 3, &key);
    put(&waiting, Part::Slice, 3, &slice);
    assert!(!has(&file(&waiting), &key.to_bytes()));
    drop(waiting);
    let waiting = open(&end);
    assert!(waiting.get(Part::Key, 3).unwrap().unwrap().ct_eq(&key));
    assert!(waiting.get(Part::Slice, 3).unwrap().unwrap().ct_eq(&slice));
    assert!(waiting.get(Part::Key, 4).unwrap().is_none());
    let sealed = waiting.store().sealed(Part::Key, 3).unwrap().unwrap().content;
    assert!(has(&file(&waiting), &sealed));
    waiting.erase(Part::Key, 3).unwrap();
    waiting.erase(Part::Key, 3).unwrap();
    assert!(waiting.get(Part::Key, 3).unwrap().is_none());
    assert!(!has(&file(&waiting), &sealed), "it is overwritten");
    drop(waiting);
    let waiting = open(&end);
    assert!(waiting.get(Part::Key, 3).unwrap().is_none(), "that outlives a restart");
    assert_eq!(waiting.store().parts().collect::<Vec<_>>(), [(Part::Slice, 3)]);
    waiting.keep_only(|_, _| false).unwrap();
    assert_eq!(waiting.store().parts().count(), 0);
}

#[test]
fn what_was_overwritten_in_part_is_gone_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = open(&end(folder.path()));
    put(&waiting, Part::Key, 0, &bits(3, 640));
    let sealed = waiting.store().sealed(Part::Key, 0).unwrap().unwrap().content;
    let mut bytes = file(&waiting);
    let at = bytes.windows(sealed.len()).position(|bytes| bytes == sealed).unwrap();
    bytes[at..at + 20].fill(0);
    fs::write(&waiting.path, bytes).unwrap();
    drop(waiting);
    assert!(open(&end(folder.path())).get(Part::Key, 0).unwrap().is_none());
}

#[test]
fn what_is_damaged_does_not_open_and_block_and_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = open(&end(folder.path()));
    put(&waiting, Part::Key, 0, &bits(4, 200));
    let sealed = waiting.store().sealed(Part::Key, 0).unwrap().unwrap().content;
    let good = file(&waiting);
    let begin = good.windows(sealed.len()).position(|bytes| bytes == sealed).unwrap();
    for at in begin..begin + sealed.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(&waiting.path, bad).unwrap();
        let refused = waiting.get(Part::Key, 0).unwrap_err().to_string();
        assert!(refused.contains("the key of block 0 in") && refused.contains("is damaged"), "byte {at}: {refused}");
    }
}

#[test]
fn what_an_older_release_left_in_a_folder_is_taken_over_and_its_files_are_erased() {
    let folder = tempfile::tempdir().unwrap();
    let end = end(folder.path());
    let waiting = open(&end);
    let older = |part: Part, block: u64, key: &Bits| {
        let sealed = waiting.seal(part, block, 9, key).unwrap();
        [&9_u64.to_le_bytes()[..], &sealed.bits.to_le_bytes(), &sealed.content].concat()
    };
    let files = [
        ("3.key", older(Part::Key, 3, &bits(1, 1003))),
        ("3.slice", older(Part::Slice, 3, &bits(2, 256))),
        // Of another block, under this one's name.
        ("4.key", older(Part::Key, 3, &bits(1, 1003))),
        // Erased, and its name was to be removed when a crash came; and one that was being written.
        ("5.key", vec![0; 70]),
        ("6.key.77-0.new", b"torn".to_vec()),
    ];
    drop(waiting);
    fs::create_dir(end.join(FOLDER)).unwrap();
    for (name, content) in &files {
        fs::write(end.join(FOLDER).join(name), content).unwrap();
    }
    fs::hard_link(end.join(FOLDER).join("3.key"), folder.path().join("second-name")).unwrap();
    for _ in 0..2 {
        let waiting = open(&end);
        assert!(waiting.get(Part::Key, 3).unwrap().unwrap().ct_eq(&bits(1, 1003)));
        assert!(waiting.get(Part::Slice, 3).unwrap().unwrap().ct_eq(&bits(2, 256)));
        assert!(waiting.get(Part::Key, 4).unwrap_err().to_string().contains("is damaged"));
        assert!(waiting.get(Part::Key, 5).unwrap().is_none());
        assert!(!end.join(FOLDER).exists());
        assert!(fs::read(folder.path().join("second-name")).unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_key_that_is_missing_is_refused_while_something_waits_and_a_placed_one_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let end = end(folder.path());
    let waiting = open(&end);
    put(&waiting, Part::Key, 0, &bits(5, 99));
    drop(waiting);
    let placed = folder.path().join("placed.key");
    MasterKey::create(&placed).unwrap();
    let both = open_with(&end, Some(&placed)).unwrap();
    assert!(both.get(Part::Key, 0).unwrap().unwrap().ct_eq(&bits(5, 99)), "sealed under the key beside it");
    put(&both, Part::Key, 1, &bits(6, 99));
    drop(both);
    assert!(open(&end).get(Part::Key, 1).is_err(), "sealed under the placed key");
    fs::remove_file(end.join("blocks.key")).unwrap();
    let refused = open_with(&end, None).err().unwrap().to_string();
    assert!(refused.contains("blocks.key is missing") && refused.contains("put it back"), "{refused}");
}
