//! Rows as bytes: little-endian, every length checked when read.

use crate::StoreError;

/// Reads a row from its start. What is missing or left over is damage.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(row: &'a [u8]) -> Self {
        Self { rest: row }
    }

    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) =
            self.rest.split_at_checked(bytes).ok_or_else(|| StoreError::corrupt("a row is too short"))?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub fn text(&mut self) -> Result<String, StoreError> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| StoreError::corrupt("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Whether a row of an earlier format ends here.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn end(self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(StoreError::corrupt("a row is too long")) }
    }
}

/// Writes a row.
#[derive(Default)]
pub(crate) struct Row(pub Vec<u8>);

impl Row {
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Length first. Lengths are limited where requests come in.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }
}
