import { describe, expect, it } from 'vitest';
import { eventFilter, eventSubject } from './subjects.js';

describe('subjects', () => {
  it.each([
    ['n1', 'container', 'start', 'flotilla.n1.container.start'],
    ['n1', 'container', 'exec_create: sh -c "x.y > *"', 'flotilla.n1.container.exec_create'],
    ['n1', 'container', 'health_status: healthy', 'flotilla.n1.container.health_status'],
    ['n1', 'container', 'archive-path', 'flotilla.n1.container.archive-path'],
    ['Host A.b', 'my type', '', 'flotilla.host_a_b.my_type._'],
    ['n1', 'x', '*.>', 'flotilla.n1.x._'],
  ])('%s %s %s -> %s', (node, type, action, subject) => {
    expect(eventSubject(node, type, action)).toBe(subject);
  });

  it('filters by one subject', () => {
    expect(eventFilter('n1')).toBe('flotilla.n1.>');
    expect(eventFilter('n1', 'volume')).toBe('flotilla.n1.volume.>');
  });
});
