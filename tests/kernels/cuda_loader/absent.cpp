// What needy_module.cpp needs and the tests do not let it find.
int lockstep_absent();
int lockstep_absent() { return 1; }
