use super::*;

fn refused(head: &[u8]) -> String {
    recognise(head).unwrap_err().to_string()
}

#[test]
fn words_are_recognised_whichever_half_comes_first() {
    let words = recording(1 << 45, 500);
    let swapped: Vec<u64> = words.iter().map(|word| word.rotate_left(32)).collect();
    assert_eq!(recognise(&bytes(&words)).unwrap(), Format::A1);
    assert_eq!(recognise(&bytes(&swapped)).unwrap(), Format::A1HighFirst);
    let (plain, _, _) = read_all(&bytes(&words), Format::A1);
    assert_eq!(read_all(&bytes(&swapped), Format::A1HighFirst).0, plain);
    let foreign: Vec<u64> = words.iter().map(|word| word.swap_bytes()).collect();
    assert!(refused(&bytes(&foreign)).contains("big-endian"));
    let foreign: Vec<u64> = words.iter().map(|word| word.swap_bytes().rotate_left(32)).collect();
    assert!(refused(&bytes(&foreign)).contains("big-endian"));
}

#[test]
fn damage_does_not_hide_what_a_file_is() {
    let mut words = recording(1 << 45, 500);
    for at in [0, 100, 101, 300] {
        words[at] ^= 1 << 60;
    }
    assert_eq!(recognise(&bytes(&words)).unwrap(), Format::A1);
    assert_eq!(recognise(&bytes(&words[..1])).unwrap(), Format::A1);
}

#[test]
fn files_of_other_programs_are_named_and_the_way_out_said() {
    for (head, name) in [
        (&b"SITT\x01\0\0\0"[..], ".ttbin"),
        (b"PQHISTO\0", "histogram"),
        (b"PicoHarp 300", ".pt2"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"0000abcd\n12345678\n0000abce\n", "a0"),
    ] {
        let error = recognise(head).unwrap_err();
        assert!(error.to_string().contains(name) && !error.advice().is_empty(), "{error}");
    }
    assert!(matches!(recognise(b""), Err(TagFileError::Empty)));
    assert!(refused(&[0; 64]).contains("neither a detector"));
    assert!(refused(b"once upon a time\nthere was a file\n").contains("time_ps,channel"));
    let noise: Vec<u64> = (0..500u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).collect();
    assert!(refused(&bytes(&noise)).contains("whichever way round"));
}

#[test]
fn hexadecimal_text_holds_the_same_words() {
    let words = recording(1 << 45, 500);
    let text: String = words.iter().map(|word| format!("{word:016x}\r\n")).collect();
    assert_eq!(recognise(text.as_bytes()).unwrap(), Format::A2);
    let (plain, _, _) = read_all(&bytes(&words), Format::A1);
    let (clicks, damage, error) = read_all(text.as_bytes(), Format::A2);
    assert!(error.is_none() && damage.skipped() == 0);
    assert_eq!(clicks, plain);
    // A line that was spoilt is skipped, and said.
    let spoilt = text.replacen("\r\n", "x\r\n", 1);
    let (clicks, damage, _) = read_all(spoilt.as_bytes(), Format::A2);
    assert_eq!((clicks.len(), damage.unreadable, damage.first_at), (499, 1, Some(0)));
}

#[test]
fn tables_of_times_and_channels_are_read_exactly() {
    let click = |time, channel| Click { time, channel };
    let expected = [click(250_000_000_001, 1), click(250_000_000_251, 3)];
    for text in [
        "time_ps,channel\n1000000000004,1\n1000000001004,3\n",
        "\u{feff}\"Channel\";\"Time [ns]\"\n1;1000000000.004\n3;1000000001.004\n",
        "# a comment\n# another\nch\ttimestamp(s)\n1\t1.000000000004\n3\t1.000000001004\n",
        "Channel Time_ms\n1 1000.000000004\n3 1000.000001004\n",
        "detector,time (\u{b5}s)\n1,1.000000000004E6\n3,1000000.001004\n",
        "1000000000004 1\n1000000001004 3\n",
        "1,1000000000004\n3,1000000001004",
        "channel,time\n1,1000000000004.4\n3,1000000001003.6\n",
    ] {
        assert!(matches!(recognise(text.as_bytes()), Ok(Format::Csv(None))), "{text}");
        let (clicks, damage, error) = read_all(text.as_bytes(), Format::Csv(None));
        assert!(error.is_none() && damage.skipped() == 0, "{text}: {error:?}, {damage:?}");
        assert_eq!(clicks, expected, "{text}");
    }
    let (clicks, _, _) = read_all(b"1,1000000000.004\n3,1000000001.004\n", "csv-ns".parse().unwrap());
    assert_eq!(clicks, expected);
    let (clicks, damage, _) = read_all(b"time_ps,channel\n40,1\nnonsense\n80,1\n-5,2\n120,x\n", Format::Csv(None));
    assert_eq!((times(&clicks), damage.unreadable, damage.first_at), (vec![10, 20], 3, Some(21)));
}

/// A .ptu file as PicoQuant's programs write it.
fn ptu(kind: u64, resolution: f64, stated: u64, records: &[u32]) -> Vec<u8> {
    let mut file = b"PQTTTR\0\0".to_vec();
    file.extend(b"1.0.00\0\0");
    let mut tag = |name: &str, kind: u32, value: u64, data: &[u8]| {
        let mut ident = [0; 32];
        ident[..name.len()].copy_from_slice(name.as_bytes());
        file.extend(ident);
        file.extend((-1i32).to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(value.to_le_bytes());
        file.extend(data);
    };
    tag("File_Comment", 0x4001_FFFF, 16, b"a comment\0\0\0\0\0\0\0");
    tag("TTResultFormat_TTTRRecType", 0x1000_0008, kind, b"");
    tag("MeasDesc_GlobalResolution", 0x2000_0008, resolution.to_bits(), b"");
    tag("TTResult_NumberOfRecords", 0x1000_0008, stated, b"");
    tag("Header_End", 0xFFFF_0008, 0, b"");
    file.extend(records.iter().flat_map(|record| record.to_le_bytes()));
    file
}

#[test]
fn picoquant_files_of_t2_mode_are_read() {
    let click = |time, channel| Click { time, channel };
    let special = |channel: u32, time: u32| 1 << 31 | channel << 25 | time;
    // MultiHarp, 5 ps: two overflows at once, a marker, the synchronisation input.
    let records = [1 << 25 | 100, special(0x3F, 2), special(3, 7), special(0, 8), 3 << 25 | 12];
    let file = ptu(0x0001_0207, 5e-12, 5, &records);
    assert_eq!(recognise(&file).unwrap(), Format::Ptu);
    let (clicks, damage, error) = read_all(&file, Format::Ptu);
    assert!(error.is_none() && damage.skipped() == 0, "{error:?}, {damage:?}");
    let over = 2 * 33_554_432u128;
    let ticks = |count: u128| (count * 5 + 2) / 4;
    assert_eq!(clicks, [click(125, 2), click(ticks(over + 8), 0), click(ticks(over + 12), 4)]);
    // The first HydraHarp counts each overflow by itself.
    let (clicks, _, _) = read_all(&ptu(0x0001_0204, 1e-12, 0, &[special(0x3F, 2), 8]), Format::Ptu);
    assert_eq!(clicks, [click(33_552_008 / 4, 1)]);
    // PicoHarp, 4 ps.
    let (clicks, _, _) =
        read_all(&ptu(0x0001_0203, 4e-12, 0, &[7, 0xF000_0000, 1 << 28 | 9, 0xF000_0013]), Format::Ptu);
    assert_eq!(clicks, [click(7, 0), click(210_698_249, 1)]);
}

#[test]
fn picoquant_files_that_cannot_be_used_say_why() {
    let said = |file: &[u8]| read_all(file, Format::Ptu).2.unwrap().to_string();
    assert!(said(&ptu(0x0001_0307, 5e-12, 1, &[0])).contains("T3"));
    assert!(said(&ptu(0x0009_0907, 5e-12, 1, &[0])).contains("0x00090907"));
    assert!(said(&ptu(0x0001_0207, 0.0, 1, &[0])).contains("no resolution"));
    assert!(said(&ptu(0x0001_0207, 5e-12, 1, &[0])[..100]).contains("header ends"));
    let (clicks, _, error) = read_all(&ptu(0x0001_0207, 5e-12, 9, &[100, 200]), Format::Ptu);
    assert_eq!(clicks.len(), 2);
    assert!(matches!(error, Some(TagFileError::RecordsMissing { found: 2, stated: 9, .. })), "{error:?}");
    let mut torn = ptu(0x0001_0207, 5e-12, 0, &[100, 200]);
    torn.pop();
    assert!(matches!(read_all(&torn, Format::Ptu).2, Some(TagFileError::CutShort { bytes: 3, word: 4, .. })));
}

#[test]
fn names_of_formats_are_read_back() {
    for name in Format::NAMES.split(", ") {
        assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
    }
    assert!("a3".parse::<Format>().unwrap_err().contains("a1-high-first"));
}
