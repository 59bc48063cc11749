# Fuzzers (libFuzzer, address and undefined behaviour sanitizers), included by the Makefile: one for each tests/fuzz/fuzz_*.c.

FUZZ_SECONDS ?= 60
FUZZ_CFLAGS   = -std=gnu11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS      := $(FUZZ_SOURCES:tests/fuzz/%.c=build/fuzz/%)
FUZZ_OBJECTS := $(patsubst fcgi/%.c,build/fuzz/%.o,$(filter-out fcgi/main.c,$(SOURCES)))

fuzz:
	$(INSTALL) build fuzz
	$(AGAIN) fuzz-programs
	@tests/fuzz/run-fuzzers $(FUZZ_SECONDS) build/fuzz $(FUZZERS)

fuzz-programs: $(FUZZERS)

build/fuzz/%.o: fcgi/%.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@clang $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

build/fuzz/%: tests/fuzz/%.c $(FUZZ_OBJECTS)
	@echo '  CC   $@'
	@clang $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer $(PKG_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(FUZZ_OBJECTS) $(LIBS)

-include $(wildcard build/fuzz/*.d) $(FUZZ_OBJECTS:.o=.d)
.SECONDARY: $(FUZZ_OBJECTS)
.PHONY: fuzz fuzz-programs
