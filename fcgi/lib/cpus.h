/* cpus: how many processors this process may use. */
#ifndef CPUS_H
#define CPUS_H

/* The number of processors in the CPU affinity mask (taskset, cpuset), or fewer if the CPU quota of the
 * control group, or of one above it, allows less; rounded up, at least 1. `root` is a prefix of /proc and
 * /sys: "" except in tests. */
int cpus_usable(const char *root);

#endif
