//! Files as release 0.1 wrote them, with whole keys.

use super::*;

/// A record for each: kind, block, key.
pub fn old_records(records: &[(Kind, u64, &Bits)]) -> Vec<u8> {
    let mut file = OLD_FILE_MAGIC.to_vec();
    for (sequence, (kind, number, key)) in records.iter().enumerate() {
        let decision = matches!(kind, Kind::Committed | Kind::Voided);
        let (ledger, trace_id) = if decision { ("", "") } else { ("{\"delivered\":1}", "00c0ffee") };
        let header = Header {
            kind: *kind,
            sequence: sequence as u64,
            block: *number,
            session: 7,
            key_bits: key.len() as u64,
            ledger_bytes: ledger.len() as u32,
            trace_bytes: trace_id.len() as u32,
        };
        let body = [&key.to_bytes()[..], ledger.as_bytes(), trace_id.as_bytes()];
        file.extend_from_slice(&Format::Key.framing().record(&header.encode(), &body));
    }
    file
}

/// Blocks 0, 1, ... with these keys, of which the first `committed` count and the others are in doubt.
pub fn old_file(keys: &[Bits], committed: usize) -> Vec<u8> {
    let none = Bits::default();
    let mut records = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        records.push((Kind::Prepared, number as u64, key));
        if number < committed {
            records.push((Kind::Committed, number as u64, &none));
        }
    }
    old_records(&records)
}
