/* cpus: how many processors this process may use. */
#ifndef CPUS_H
#define CPUS_H

/* The processors that its affinity allows (taskset, cpuset), or fewer when the CPU quota of its control group, or of
 * one above, is worth less; a part of a processor counts as a whole one. At least 1. `root` is a prefix of /proc and /sys: "" except in tests. */
int cpus_usable(const char *root);

#endif
