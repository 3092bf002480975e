//! An example as a person reads it: each token's text, its id, and whether it is trained on.

use super::batch::Example;
use super::traits::Encode;

/// The tokens of an example: (text with line breaks written out, id, whether it is a label).
/// The first token is never one: nothing comes before it.
pub fn explain(example: &Example, encode: &dyn Encode) -> Vec<(String, u32, bool)> {
    example
        .ids
        .iter()
        .zip(&example.trained)
        .enumerate()
        .map(|(i, (&id, &trained))| (encode.display(id), id, trained && i > 0))
        .collect()
}
