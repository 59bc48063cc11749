# The clock that tests own (clock.c) and slow_writes.c, built along with the sanitizer build, whose tests load them.

build/asan/%.so: tests/clock/%.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) -shared -fPIC -o $@ $<

build/asan/taskproxy: | build/asan/clock.so build/asan/slow_writes.so
