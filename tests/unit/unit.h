/* unit: what every unit test begins with. A test is TEST(its_name_is_a_sentence) { ... }. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TEST(sentence) static void sentence(void **unused __attribute__((unused)))

#endif
