//! Only the owner decides where a credential goes.
