//! The program itself. One binary: it is linked once, and what waits in one of these modules waits beside the others.

mod command_line;
mod crash;
mod faults;
