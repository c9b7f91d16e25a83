//! Only an answer is an answer.
