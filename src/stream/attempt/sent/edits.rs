//! The members that are others in a body that goes out in its caller's dialect: the model that serves, and what an
//! operator demands of it. Every other byte is the caller's.

use super::Sent;
use crate::{
    attempt::asked_model::AskedModel,
    dialect::{Accent, Demands, Dialect, Steered},
    gate::Refusal,
    header::HeaderText,
    host::{Side, Stream},
    request::carried::Carried,
    snapshot::{Account, Endpoint},
    text::{
        edit::{Edit, EditKind, edited},
        tree::{MAX_DEPTH, MAX_VALUES, Tree, Unread},
    },
};

/// The largest request body in which the model or what is said of it is another one, in bytes: it is held whole, beside the
/// one that goes out.
pub(super) const MAX_EDITED_BYTES: usize = 16 * 1024 * 1024;

/// The demands on a request that goes out in its caller's dialect, and the facts of the platform that matter for them.
#[derive(Debug)]
pub(super) struct Demanded {
    demands: Demands,
    accent: Accent,
    refuses: Vec<String>,
    /// Members that the request does not have are not put into it.
    only_said: bool,
}

impl Sent {
    /// The model that its caller asked for.
    pub(super) fn asked(&self) -> Option<&HeaderText> {
        self.carried.asked.as_ref().or(self.carried.model.as_ref())
    }

    /// The model that its body is to name, where another one than its caller's serves it.
    pub(super) fn renamed_to(&self) -> Option<&HeaderText> {
        let is_renamed = self.model.as_ref() != self.asked() && !self.escape;
        self.model.as_ref().filter(|_| is_renamed)
    }

    /// The request's body, of `size` bytes, with the model in it that serves it and what is demanded.
    pub(super) fn edited(&self, size: usize, stream: &impl Stream) -> Result<Vec<u8>, Refusal> {
        if size > MAX_EDITED_BYTES {
            return Err(beyond(&format!("{} MiB", MAX_EDITED_BYTES >> 20)));
        }
        let body = stream.body(Side::Request, 0, size);
        let tree = match Tree::read(&body) {
            Ok(tree) => Some(tree),
            Err(Unread::TooLarge) => return Err(beyond(&format!("{MAX_VALUES} values"))),
            Err(Unread::TooDeep) => {
                return Err(Refusal::Unchangeable {
                    too_large: false,
                    why: format!("only a body of up to {MAX_DEPTH} levels is changed"),
                });
            }
            Err(Unread::NoJson { .. }) => None,
        };
        let make = |tree: &Tree<'_>| {
            let mut edits: Vec<Edit> = Vec::new();
            edits.extend(self.renamed_to().map(|model| Edit {
                path: vec!["model".to_owned()],
                // In visible ASCII.
                value: serde_json::Value::from(model.as_str()).to_string(),
                kind: EditKind::ReplaceText,
            }));
            if let Some(demanded) = &self.demanded {
                edits.extend(demanded.edits(self.dialect, tree)?);
            }
            edited(tree, &edits)
        };
        tree.as_ref()
            .and_then(make)
            .ok_or_else(|| Refusal::Unchangeable {
                too_large: false,
                why: "it is no object of JSON, or has thousands of members where that is said"
                    .to_owned(),
            })
    }

    /// The changer of the model's name in its answer to the one that was asked for, where those differ. A translated answer
    /// does that by itself.
    pub(in crate::stream::attempt) fn asked_model(&self) -> Option<AskedModel> {
        let passes = self.translated.is_none() && !self.opaque;
        let asked = self.renamed_to().and(self.asked()).filter(|_| passes)?;
        Some(AskedModel::new(self.carried.dialect, asked.as_str()))
    }
}

/// The refusal of a body that is larger than what is changed.
fn beyond(bound: &str) -> Refusal {
    Refusal::Unchangeable {
        too_large: true,
        why: format!("only a body of up to {bound} is changed"),
    }
}

impl Demanded {
    /// Makes the demands on a request as `account` at `endpoint`, which `model` serves; none where nothing is
    /// demanded, or no model answers there.
    pub(super) fn of(
        carried: &Carried,
        account: &Account,
        endpoint: &Endpoint,
        model: &Option<HeaderText>,
    ) -> Option<Self> {
        let demands = carried.demands_at(account);
        if demands.is_none() || !endpoint.is_steered() {
            return None;
        }
        let names = [model, &carried.model];
        let names = names.map(|model| model.as_ref().map_or("", HeaderText::as_str));
        Some(Self {
            demands,
            accent: endpoint.accent(&names),
            refuses: endpoint.refuses.clone(),
            only_said: endpoint.completes(),
        })
    }

    fn edits(&self, dialect: Dialect, body: &Tree<'_>) -> Option<Vec<Edit>> {
        let platform = Steered {
            accent: &self.accent,
            refuses: &self.refuses,
        };
        let mut edits = self.demands.edits(dialect, platform, body)?;
        if self.only_said {
            edits.retain(|edit| edit.kind != EditKind::Remove);
            for edit in &mut edits {
                edit.kind = EditKind::Replace;
            }
        }
        Some(edits)
    }
}
