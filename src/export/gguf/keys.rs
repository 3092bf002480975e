//! The key-value part of a GGUF's header: typed values, and those of another file as they stand there.

use crate::{Error, Result};

/// A value. `Raw` is one of another file: its type number and its bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Raw(u32, Vec<u8>),
}

/// GGUF's type numbers (gguf.h, `gguf_type`).
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Keys in the order in which they are written; a key set again keeps its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keys(Vec<(String, Value)>);

impl Keys {
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub fn text(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.set(key, Value::Text(value.into()));
    }

    /// # Errors
    /// When the number needs more than 32 bits.
    pub fn size(&mut self, key: impl Into<String>, value: usize) -> Result<()> {
        let key = key.into();
        let value = u32::try_from(value).map_err(|_| Error::new(format!("{key} = {value} is too large for a GGUF")))?;
        self.set(key, Value::U32(value));
        Ok(())
    }

    pub fn float(&mut self, key: impl Into<String>, value: f64) {
        self.set(key, Value::F32(value as f32));
    }

    pub fn flag(&mut self, key: impl Into<String>, value: bool) {
        self.set(key, Value::Bool(value));
    }

    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(k, _)| k != key);
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// All of them, as a header holds them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.0 {
            text(key, out);
            out.extend(value.kind().to_le_bytes());
            value.encode(out);
        }
    }

    /// The keys of a whole `.gguf` (version 2 or 3), in its order.
    ///
    /// # Errors
    /// When the header ends early, or has a type that GGUF does not.
    pub fn of_file(bytes: &[u8]) -> Result<Self> {
        let mut at = Cursor { bytes, at: 0 };
        if at.take(4)? != b"GGUF" {
            return Err(Error::new("not a GGUF file"));
        }
        let version = at.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Error::new(format!("GGUF version {version} is not supported")).next("supported: 2 and 3"));
        }
        let (_tensors, count) = (at.u64()?, at.u64()?);
        let mut keys = Vec::new();
        for _ in 0..count {
            let length = at.u64()?;
            let key = String::from_utf8_lossy(at.take(length)?).into_owned();
            let kind = at.u32()?;
            let start = at.at;
            at.skip(kind)?;
            keys.push((key, Value::Raw(kind, bytes[start..at.at].to_vec())));
        }
        Ok(Self(keys))
    }
}

impl Value {
    fn kind(&self) -> u32 {
        match self {
            Value::U32(_) => U32,
            Value::I32(_) => I32,
            Value::F32(_) => F32,
            Value::Bool(_) => BOOL,
            Value::Text(_) => TEXT,
            Value::Texts(_) | Value::I32s(_) | Value::F32s(_) => LIST,
            Value::Raw(kind, _) => *kind,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let list = |kind: u32, length: usize, out: &mut Vec<u8>| {
            out.extend(kind.to_le_bytes());
            out.extend((length as u64).to_le_bytes());
        };
        match self {
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Text(v) => text(v, out),
            Value::Texts(v) => {
                list(TEXT, v.len(), out);
                v.iter().for_each(|v| text(v, out));
            }
            Value::I32s(v) => {
                list(I32, v.len(), out);
                v.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Value::F32s(v) => {
                list(F32, v.len(), out);
                v.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Value::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

pub(super) fn text(value: &str, out: &mut Vec<u8>) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let Some(found) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(Error::new("the GGUF header ends early").next("copy or download the file again"));
        };
        self.at += found.len();
        Ok(found)
    }

    fn u32(&mut self) -> Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self) -> Result<u64> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(low) | (u64::from(high) << 32))
    }

    /// Past one value of a type.
    fn skip(&mut self, kind: u32) -> Result<()> {
        let size = |kind: u32| match kind {
            0 | 1 | BOOL => Some(1),
            2 | 3 => Some(2),
            U32 | I32 | F32 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        let unknown = |kind: u32| Error::new(format!("the GGUF header has a value of unknown type {kind}"));
        match kind {
            TEXT => {
                let length = self.u64()?;
                self.take(length)?;
            }
            LIST => {
                let (kind, length) = (self.u32()?, self.u64()?);
                if kind == TEXT {
                    for _ in 0..length {
                        let length = self.u64()?;
                        self.take(length)?;
                    }
                } else {
                    // A list of lists is of a type that llama.cpp itself refuses.
                    let size: u64 = size(kind).ok_or_else(|| unknown(kind))?;
                    self.take(length.saturating_mul(size))?;
                }
            }
            kind => {
                let size = size(kind).ok_or_else(|| unknown(kind))?;
                self.take(size)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Keys {
        let mut keys = Keys::default();
        keys.text("general.architecture", "llama");
        keys.size("a", 7).unwrap();
        keys.set("b", Value::Texts(vec!["x".into(), String::new(), "Ġthe".into()]));
        keys.set("c", Value::I32s(vec![-1, 2]));
        keys.float("d", 0.1);
        keys.flag("e", true);
        keys
    }

    fn file(keys: &Keys) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((keys.len() as u64).to_le_bytes());
        keys.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_keys_of_a_file_are_written_again_as_they_stood() {
        let bytes = file(&some());
        let read = Keys::of_file(&bytes).unwrap();
        assert_eq!(file(&read), bytes);
        assert!(read.has("b") && !read.has("f"));
    }

    #[test]
    fn a_header_that_ends_early_or_lies_about_lengths_is_refused() {
        let bytes = file(&some());
        for cut in 0..bytes.len() {
            assert!(Keys::of_file(&bytes[..cut]).is_err(), "{cut}");
        }
        // The length of the first key.
        let mut huge = bytes;
        huge[24..32].fill(0xFF);
        assert!(Keys::of_file(&huge).is_err());
    }

    #[test]
    fn a_key_set_again_keeps_its_place() {
        let mut keys = some();
        keys.size("a", 8).unwrap();
        let names: Vec<&str> = keys.iter().map(|(k, _)| k).collect();
        assert_eq!(names, ["general.architecture", "a", "b", "c", "d", "e"]);
        assert!(keys.size("a", 1 << 40).is_err());
    }
}
