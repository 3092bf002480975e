//! Values in a `.gguf`'s header by their keys.

use crate::{Error, Result};
use candle_core::quantized::gguf_file::{Content, Value};

/// Typed look-ups in a GGUF's metadata. Errors name the key.
#[derive(Clone, Copy)]
pub struct Metadata<'a>(&'a Content);

impl<'a> Metadata<'a> {
    pub(super) fn of(content: &'a Content) -> Self {
        Self(content)
    }

    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.metadata.get(key)
    }

    pub fn text(self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(Error::new(format!("{key} is not a string"))),
        }
    }

    /// Any whole number that is not negative.
    pub fn size(self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match whole(v) {
                Some(n) => Ok(Some(n)),
                None => Err(Error::new(format!("{key} is not a whole number"))),
            },
        }
    }

    pub fn float(self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            // Read as the shortest decimal that gives this f32, so that 1e-5 is 1e-5 and not 9.999999747e-6.
            Some(Value::F32(v)) => Ok(v.to_string().parse().ok()),
            Some(Value::F64(v)) => Ok(Some(*v)),
            Some(_) => Err(Error::new(format!("{key} is not a number"))),
        }
    }

    pub fn flag(self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(Error::new(format!("{key} is not true or false"))),
        }
    }

    /// An array, or `None` where the key is absent.
    pub fn list(self, key: &str) -> Result<Option<&'a [Value]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(Error::new(format!("{key} is not a list"))),
        }
    }

    pub fn texts(self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let text = |v: &'a Value| match v {
            Value::String(s) => Ok(s.as_str()),
            _ => Err(Error::new(format!("{key} is not a list of strings"))),
        };
        list.iter().map(text).collect::<Result<Vec<_>>>().map(Some)
    }
}

/// Any integer that is not negative.
pub fn whole(v: &Value) -> Option<usize> {
    match *v {
        Value::U8(n) => Some(n.into()),
        Value::U16(n) => Some(n.into()),
        Value::U32(n) => usize::try_from(n).ok(),
        Value::U64(n) => usize::try_from(n).ok(),
        Value::I8(n) => usize::try_from(n).ok(),
        Value::I16(n) => usize::try_from(n).ok(),
        Value::I32(n) => usize::try_from(n).ok(),
        Value::I64(n) => usize::try_from(n).ok(),
        _ => None,
    }
}
