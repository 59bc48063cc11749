/* unit: included by every unit test. A test is TEST(subject_and_behavior) { ... }. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TEST(name) static void name(void **unused __attribute__((unused)))

#endif
