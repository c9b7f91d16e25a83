//! What is taken away is out of use in two seconds, whatever else is wrong.
