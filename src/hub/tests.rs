//! The hub alone, with an encoder whose frames can be read.

use std::io::IoSlice;
use std::sync::Arc;

use super::*;
use crate::model::{Encode, Epoch, Member, Payload, Publication};
